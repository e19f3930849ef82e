//! Starts that are refused, and one that is allowed without any configuration.

use super::harness::*;

#[test]
fn a_bad_configuration_is_refused_at_start_with_everything_that_is_wrong() {
    let machine =
        Machine::new("replication: { enabled: true, role: leader, logsize: 5 }\nservr: {}\n")
            .env("REPLICATION_HEARTBEAT_INTERVAL", "often");
    let (code, said) = machine.run();
    assert_eq!(code, Some(2));
    for part in [
        "config.yaml: replication.role: `leader` is not allowed: expected `master` or `replica`",
        "config.yaml: replication.logsize: unknown key (did you mean `log_size`?)",
        "config.yaml: servr: unknown section (did you mean `server`?)",
        "environment variable REPLICATION_HEARTBEAT_INTERVAL: `often` is not allowed: expected a whole number from 1 to 3600",
    ] {
        assert!(said.contains(part), "{part}\nnot in\n{said}");
    }
    assert!(!machine.data_dir().exists(), "nothing was touched");
}

#[tokio::test]
async fn two_nodes_cannot_share_a_data_directory() {
    let machine = Machine::new("");
    let node = machine.start().await;
    let (code, said) = machine.run();
    assert_eq!(code, Some(1));
    assert!(said.contains("in use by process"), "{said}");
    assert!(said.contains(&node.addresses.pid.to_string()), "{said}");
    assert!(node.client.ready().await.unwrap());
}

#[tokio::test]
async fn without_replication_a_node_is_a_master_of_its_own() {
    let machine = Machine::new("");
    let node = machine.start().await;
    assert_eq!(node.addresses.replication, None);
    node.create().await;
    node.put(0..3).await;
    assert_eq!(node.stop().await, Some(0));
    let node = machine.start().await;
    node.holds(0..3).await;
    let warnings = node.status().await.warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("server.admin_key_file"),
        "{warnings:?}"
    );
}
