//! See `fuzz_targets::slot_map`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::slot_map(data));
