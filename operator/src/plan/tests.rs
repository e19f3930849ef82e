//! Plans checked against a model of a cluster: tables of situations, an operator killed at any step, and any order of
//! accidents.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a test picks the steps that it is about"
)]

mod accidents;
mod concern;
mod loss;
pub(crate) mod model;
mod pressure;
mod promotion;
mod reported;
mod requests;
mod rollout;
mod secrets;
mod start;
mod steady;
mod stuck;
mod volumes;
mod words;
