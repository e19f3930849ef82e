//! Plans checked against a model of a cluster: tables of situations, an operator killed at any step, and any order of
//! accidents.

mod accidents;
mod model;
mod promotion;
mod rollout;
mod start;
mod steady;
