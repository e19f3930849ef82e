//! See `src/handshake.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vectorizer_fuzz::handshake::run(bytes));
