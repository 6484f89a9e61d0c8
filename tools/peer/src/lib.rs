//! The library of the listening client: a player's side of Deadwax.
//!
//! A player asks its own cache, then other listeners, then a gateway, and it asks for a track **window** by window:
//! the pieces that cover about 15 s. [`Windows`] says where a track's windows lie; it is where to start, and today it
//! is all there is.
//!
//! Absent on purpose: the policy of whom to ask and when, the own cache and the uploads to other listeners. They come
//! with the listening client (`deadwax play`); nothing here waits for them.

mod windows;

pub use windows::Windows;
