//! See `deadwax_engine::fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    deadwax_engine::fuzz::record(bytes);
});
