//! Anti-entropy: seeded networks of nodes that lose, double, delay and reorder messages, and the bytes of the messages.

mod codec;
mod divergence;
mod load;
mod network;
mod strays;
