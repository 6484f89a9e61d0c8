//! Placement as a whole: every volume has its fair share, a change moves little more than it must, the rules hold, and
//! all of it is the same on every machine.

mod changes;
mod cluster;
mod golden;
mod plan;
mod rules;
mod settled;
