//! See `fuzz_targets::delta_list`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::delta_list(data));
