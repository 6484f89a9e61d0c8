//! Repair: the order of pulls, their rate, what failures do, random lives against a model, and a site that lost a
//! volume.

mod failures;
mod lives;
mod node;
mod order;
mod rate;
mod site;
