//! See `fuzz_targets::boot_entry`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz_targets::boot_entry(data));
