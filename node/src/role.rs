//! Role, epochs and identity of this node, durable.
