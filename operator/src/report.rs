//! The last call of a pass: the status from plan and outcome, written only when it says something new.
//!
//! Times alone are nothing new. Figures that move with every write, offsets and lags, are written at most every ten
//! seconds, so that a busy cluster does not keep the API server busy.

use std::time::Duration;

use crate::act::Done;
use crate::crd::ClusterStatus;
use crate::plan::{Plan, status};
use crate::world::World;

/// Between two reports that differ in nothing but figures.
pub const FIGURES_EVERY: Duration = Duration::from_secs(10);

/// The status after a pass.
pub fn status_after(world: &World, plan: &Plan, done: &Done) -> ClusterStatus {
    let mut status = plan.status.clone();
    if done.refused.is_some() {
        // The plan's last words did not come true; what was recorded did.
        done.memory.write_to(&mut status);
        status::promoted(&mut status, world.cluster.generation, world.now);
    } else if let (true, Some(last)) = (done.recorded, &done.memory.last_promotion) {
        // How long writes paused is known only now.
        status.last_promotion = Some(last.clone());
    }
    let refused = done.refused.as_ref().map(ToString::to_string);
    let mut troubles: Vec<String> = refused
        .into_iter()
        .chain(done.troubles.iter().cloned())
        .collect();
    troubles.dedup();
    if !troubles.is_empty() {
        let why = troubles.join("; ");
        status::refused(&mut status, world.cluster.generation, &why, world.now);
    }
    status
}

/// Whether a status is worth writing over the stored one.
pub fn is_news(stored: &ClusterStatus, next: &ClusterStatus, since_last: Option<Duration>) -> bool {
    if without_figures(stored) != without_figures(next) {
        return true;
    }
    let figures_due = since_last.is_none_or(|since| since >= FIGURES_EVERY);
    figures_due && without_times(stored) != without_times(next)
}

fn without_times(status: &ClusterStatus) -> ClusterStatus {
    let mut status = status.clone();
    for node in &mut status.nodes {
        node.last_heartbeat = None;
    }
    status
}

fn without_figures(status: &ClusterStatus) -> ClusterStatus {
    let mut status = without_times(status);
    status.lag = None;
    for node in &mut status.nodes {
        node.lag_ms = None;
        node.lag_operations = None;
        node.offset = None;
    }
    if let Some(position) = status.master.as_mut().and_then(|m| m.position.as_mut()) {
        position.offset = 0;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use crate::crd::{MasterPosition, MasterStatus, NodeRole, NodeStatus, NodeSync};

    fn status(offset: u64) -> ClusterStatus {
        ClusterStatus {
            nodes: vec![NodeStatus {
                pod: "demo-replica-0".into(),
                node_id: None,
                role: NodeRole::Replica,
                status: NodeSync::Connected,
                lag_ms: Some(0),
                lag_operations: Some(0),
                epoch: Some(1),
                offset: Some(offset),
                last_heartbeat: None,
                read_eligible: true,
            }],
            ..ClusterStatus::default()
        }
    }

    #[test]
    fn figures_are_news_only_every_ten_seconds() {
        let (old, new) = (status(1), status(2));
        assert!(!is_news(&old, &new, Some(Duration::from_secs(3))));
        assert!(is_news(&old, &new, Some(FIGURES_EVERY)));
        assert!(!is_news(&old, &old.clone(), Some(FIGURES_EVERY)));
    }

    #[test]
    fn how_far_the_master_is_counts_as_a_figure_and_its_epoch_does_not() {
        let at = |epoch, offset| {
            let mut status = status(1);
            status.master = Some(MasterStatus {
                pod: "demo-master-0".into(),
                node_id: uuid::Uuid::nil(),
                boot_id: uuid::Uuid::nil(),
                epoch: 2,
                since: Time(Timestamp::UNIX_EPOCH),
                endpoint: String::new(),
                position: Some(MasterPosition {
                    epoch,
                    offset,
                    first_offset: None,
                }),
            });
            status
        };
        assert!(!is_news(&at(2, 8), &at(2, 9), Some(Duration::ZERO)));
        assert!(is_news(&at(2, 8), &at(2, 9), Some(FIGURES_EVERY)));
        assert!(is_news(&at(1, 7), &at(2, 8), Some(Duration::ZERO)));
    }

    #[test]
    fn a_change_of_state_is_news_at_once() {
        let old = status(1);
        let mut new = old.clone();
        new.nodes[0].status = NodeSync::Lagging;
        assert!(is_news(&old, &new, Some(Duration::ZERO)));
    }
}
