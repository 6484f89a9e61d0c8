//! See `deadwax_engine::fuzz::tags`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    deadwax_engine::fuzz::tags(bytes);
});
