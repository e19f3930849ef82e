//! The TCP driver of replication sessions, for both sides.
