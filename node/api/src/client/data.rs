//! Collections and vectors.
