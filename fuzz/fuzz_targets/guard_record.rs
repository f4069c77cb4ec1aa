//! See `fuzz_targets::guard_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::guard_record(data));
