//! The data directory: its lock, its role file and its generations of checkpoint and journal.
