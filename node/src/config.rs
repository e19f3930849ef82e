//! Configuration from YAML, environment and flags, refused at start where it is wrong.
