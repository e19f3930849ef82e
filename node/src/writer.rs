//! The one task that owns journal, store and role.
