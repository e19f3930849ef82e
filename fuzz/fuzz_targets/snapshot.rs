//! See `src/snapshot.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vectorizer_fuzz::snapshot::run(bytes));
