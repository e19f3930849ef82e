//! Permission to acknowledge writes: from a Lease under Kubernetes, static otherwise.
