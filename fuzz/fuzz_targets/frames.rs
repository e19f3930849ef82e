//! See `src/frames.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vectorizer_fuzz::frames::run(bytes));
