//! See `deadwax_engine::fuzz::segment_header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    deadwax_engine::fuzz::segment_header(bytes);
});
