//! See `fuzz_targets::delta_table`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::delta_table(data));
