//! The segmented write-ahead log that is the replication log.
