//! See `fuzz_targets::fat`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::fat(data));
