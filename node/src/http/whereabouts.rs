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
    let service = kubernetes.map(|k| format!("{}-rw", k.lease));
    in_words(state.master_url.as_deref(), service.as_deref())
}

fn in_words(url: Option<&str>, service: Option<&str>) -> String {
    match (service, url) {
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

    #[test]
    fn where_writes_go_is_told_for_those_outside_the_cluster_too() {
        let url = Some("http://10.0.0.1:15002");
        let said = in_words(url, Some("demo-rw"));
        for word in ["Service demo-rw", "http://10.0.0.1:15002", "port-forward"] {
            assert!(said.contains(word), "{said}");
        }
        let said = in_words(url, None);
        assert!(said.contains("http://10.0.0.1:15002"), "{said}");
        assert!(!said.contains("port-forward"), "{said}");
        // The address of replication, which is what is known then, is no place for requests.
        let said = in_words(None, None);
        assert!(said.contains("replication.master_url"), "{said}");
    }
}
