//! Collections in memory.
