//! See `fuzz_targets::entry_names`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::entry_names(data));
