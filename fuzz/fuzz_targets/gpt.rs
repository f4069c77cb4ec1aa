//! See `fuzz_targets::gpt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::gpt(data));
