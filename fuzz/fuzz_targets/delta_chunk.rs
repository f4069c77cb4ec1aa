//! See `fuzz_targets::delta_chunk`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::delta_chunk(data));
