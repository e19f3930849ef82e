//! Where the master is, in words for whoever has come to the wrong node.
//!
//! Addresses of pods help programs inside the cluster. Whoever came through a port-forward or an ingress is helped by the
//! Service's name, and by being told that a port-forward stays with the pod that it found.

use serde_json::{Value, json};

use super::Api;
use crate::writer::NodeState;

/// Where its REST API is, after "the master" or "its master", as far as it is known here.
pub(super) fn of_master(api: &Api, state: &NodeState) -> String {
    let kubernetes = api.config.kubernetes.as_ref();
    // The Lease has the cluster's name.
    in_words(state, kubernetes.map(|k| format!("{}-rw", k.lease)))
}

fn in_words(state: &NodeState, service: Option<String>) -> String {
    match (service, &state.master_url) {
        (Some(service), Some(url)) => format!(
            "the master through Service {service}, at present {url}; a port-forward stays with the pod that it was begun for, begin it again"
        ),
        (Some(service), None) => format!("the master through Service {service}"),
        (None, Some(url)) => format!("the master at {url}"),
        (None, None) => {
            "the master's REST API (replication.master_url would name it here)".to_owned()
        }
    }
}

/// The same for programs: its replication address and the URL of its REST API.
pub(super) fn details(state: &NodeState) -> Value {
    json!({ "master": state.master_address, "master_url": state.master_url })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::writes::tests::state;
    use vectorizer_api::replication::Role;

    #[test]
    fn the_rest_address_is_named_or_none_and_never_that_of_replication() {
        let mut state = state(Role::Replica);
        let known = in_words(&state, None);
        assert!(known.contains("http://10.0.0.1:15002"), "{known}");
        let service = in_words(&state, Some("demo-rw".to_owned()));
        for word in ["Service demo-rw", "http://10.0.0.1:15002", "port-forward"] {
            assert!(service.contains(word), "{service}");
        }
        state.master_url = None;
        for service in [None, Some("demo-rw".to_owned())] {
            let unknown = in_words(&state, service);
            assert!(!unknown.contains("7001"), "{unknown}");
        }
    }
}
