//! Changes of the Lease: compare-and-swap, by content or by version.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use vectorizer_api::lease::{EXPIRE_MS, Grant};

use super::Refused;
use crate::names;
use crate::observe::{Whose, is_owned, parse_lease, whose};
use crate::plan::Expect;
use crate::render;
use crate::world::Cluster;

/// A renewal may come between reading and writing; twice in a row is rare, more often means that something is wrong.
const TRIES: u32 = 5;

/// Replaces the Lease if it is as expected. What it is to become counts as expected: the command may be repeated.
pub(super) async fn set(
    client: &Client,
    cluster: &Cluster,
    expect: &Expect,
    grant: &Grant,
) -> Result<(), Refused> {
    let name = names::lease(&cluster.name);
    let api: Api<Lease> = Api::namespaced(client.clone(), &cluster.namespace);
    let failed = |source| Refused::Api {
        what: format!("Lease {name}"),
        source,
    };
    for _ in 0..TRIES {
        let Some(current) = api.get_opt(&name).await.map_err(failed)? else {
            if *expect != Expect::Missing {
                return Err(Refused::Lease("it is gone".to_owned()));
            }
            let mut lease = Lease {
                metadata: render::metadata(cluster, name.clone()),
                spec: None,
            };
            write(&mut lease, cluster, grant);
            api.create(&PostParams::default(), &lease)
                .await
                .map_err(failed)?;
            return Ok(());
        };
        let content = parse_lease(&current).map_err(Refused::Lease)?;
        if content == *grant {
            return Ok(());
        }
        let version = current.metadata.resource_version.as_ref();
        let as_expected = match expect {
            Expect::Missing => false,
            Expect::Content(expected) => content == *expected,
            Expect::Version(expected) => version == Some(expected),
        };
        if !as_expected {
            return Err(Refused::Lease(describe(&content)));
        }
        let mut lease = current;
        write(&mut lease, cluster, grant);
        match api.replace(&name, &PostParams::default(), &lease).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Err(Refused::Lease(
        "it is being changed all the time".to_owned(),
    ))
}

fn write(lease: &mut Lease, cluster: &Cluster, grant: &Grant) {
    own(&mut lease.metadata, cluster);
    let now = MicroTime(Timestamp::now());
    let old = lease.spec.take().unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: grant.holder.as_ref().map(|h| h.pod.clone()),
        acquire_time: grant.holder.as_ref().map(|_| now.clone()),
        renew_time: Some(now),
        lease_duration_seconds: i32::try_from(EXPIRE_MS / 1000).ok(),
        lease_transitions: Some(old.lease_transitions.unwrap_or(0).saturating_add(1)),
        ..old
    });
    lease
        .metadata
        .annotations
        .get_or_insert_default()
        .extend(grant.annotations());
}

/// Makes a Lease the cluster's own that has no owner. Where another controls it by now, it is left alone.
pub(super) async fn adopt(client: &Client, cluster: &Cluster) -> Result<(), Refused> {
    let name = names::lease(&cluster.name);
    let api: Api<Lease> = Api::namespaced(client.clone(), &cluster.namespace);
    let failed = |source| Refused::Api {
        what: format!("Lease {name}"),
        source,
    };
    let Some(mut lease) = api.get_opt(&name).await.map_err(failed)? else {
        return Ok(());
    };
    if whose(&lease.metadata, &cluster.name, cluster.uid) == Whose::Others {
        return Ok(());
    }
    own(&mut lease.metadata, cluster);
    match api.replace(&name, &PostParams::default(), &lease).await {
        Ok(_) => Ok(()),
        // Renewed in between: the next pass comes soon.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(source) => Err(failed(source)),
    }
}

/// The cluster's labels and its ownership, beside what is there.
fn own(metadata: &mut ObjectMeta, cluster: &Cluster) {
    let ours = render::metadata(cluster, names::lease(&cluster.name));
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(ours.labels.unwrap_or_default());
    if !is_owned(metadata, cluster.uid) {
        metadata.owner_references = ours.owner_references;
    }
}

fn describe(grant: &Grant) -> String {
    match &grant.holder {
        Some(holder) => format!(
            "epoch {} is granted to {} ({})",
            grant.epoch, holder.pod, holder.boot_id
        ),
        None => format!("it is vacant at epoch {}", grant.epoch),
    }
}
