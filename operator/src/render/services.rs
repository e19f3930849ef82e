//! Services: one for writes under two names, one for reads, one that gives every pod an address.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{metadata, pods_of, pods_with};
use crate::names;
use crate::world::Cluster;

/// Every Service.
pub fn all(cluster: &Cluster) -> Vec<Service> {
    let name = &cluster.name;
    let master = || pods_with(cluster, names::ROLE, "master");
    vec![
        service(cluster, name.clone(), master()),
        service(cluster, names::write_service(name), master()),
        service(
            cluster,
            names::read_service(name),
            pods_with(cluster, names::READ_ELIGIBLE, "true"),
        ),
        nodes(cluster),
    ]
}

fn service(
    cluster: &Cluster,
    name: String,
    selector: std::collections::BTreeMap<String, String>,
) -> Service {
    Service {
        metadata: metadata(cluster, name),
        spec: Some(ServiceSpec {
            selector: Some(selector),
            ports: Some(vec![port("rest", names::REST_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Not ready pods are published: nodes have to find each other before there is a master.
fn nodes(cluster: &Cluster) -> Service {
    Service {
        metadata: metadata(cluster, names::nodes_service(&cluster.name)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(pods_of(cluster)),
            ports: Some(vec![
                port("rest", names::REST_PORT),
                port("ops", names::OPS_PORT),
                port("replication", names::REPLICATION_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
