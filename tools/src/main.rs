//! Deadwax.
fn main() {}
