//! See `deadwax_engine::fuzz::listing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    deadwax_engine::fuzz::listing(bytes);
});
