//! See `fuzz_targets::secure_boot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::secure_boot(data));
