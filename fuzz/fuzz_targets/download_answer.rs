//! See `fuzz_targets::download_answer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::download_answer(data));
