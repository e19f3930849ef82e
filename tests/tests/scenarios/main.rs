//! What a user does with a cluster, on a real Kubernetes: each scenario in its own namespace, several at a time.
//! Needs the cluster of tests/kind/ with the operator installed, as `make test` leaves it.

mod chart;
mod create;
mod first_hours;
mod kept;
mod left_behind;
mod promotion;
mod python_client;
mod recovery;
mod refusals;
mod scale;
mod silence;
mod typed;
mod watched;
