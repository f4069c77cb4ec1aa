//! See `fuzz_targets::health_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::health_config(data));
