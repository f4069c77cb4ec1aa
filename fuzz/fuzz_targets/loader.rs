//! See `fuzz_targets::loader`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::loader(data));
