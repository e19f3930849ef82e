//! What may disturb other scenarios: the operator is killed, a machine is lost or takes no pods. One at a time, after everything else.

mod machine_loss;
mod moved;
mod operator_killed;
mod operator_replaced;
