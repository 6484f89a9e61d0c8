//! Deadwax.
