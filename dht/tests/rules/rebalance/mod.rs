//! The planner: a cluster that is changed at random and keeps its promises at every epoch, what single changes move,
//! commands and their answers, and the bytes of reports.

mod codec;
mod commands;
mod life;
mod movement;
mod pace;
mod world;
