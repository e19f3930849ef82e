//! The last call of a pass: the status from plan and outcome, written only when it says something new.
//!
//! Times alone are nothing new. Figures that move with every write, offsets and lags, are written at most every ten
//! seconds, so that a busy cluster does not keep the API server busy.

use std::time::Duration;

use crate::act::Done;
use crate::api::shortened;
use crate::crd::ClusterStatus;
use crate::plan::{Plan, status};
use crate::world::World;

/// Longest text about everything that was refused, in bytes.
const MOST: usize = 900;
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
        let why = shortened(&troubles.join("; "), MOST);
        status::refused(&mut status, world.cluster.generation, &why, world.now);
    } else if let Some((what, _, words)) = done.refusals.first() {
        // As the next plan says it, which knows of it.
        let why = format!("{what}: {words}");
        status::object_refused(&mut status, world.cluster.generation, &why, world.now);
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

    use crate::act::Refused;
    use crate::crd::{
        MasterPosition, MasterStatus, NodeRole, NodeStatus, NodeSync, PromoteMode, TargetStep,
    };
    use crate::names::{condition, reason};
    use crate::plan::tests::model::Model;
    use crate::plan::{Memory, Step};

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

    /// A switchover: what was read, and the plan made of it.
    fn switchover() -> (World, Plan) {
        let mut model = Model::healthy(3);
        model.ask("a", PromoteMode::Switchover, Some("demo-replica-1"));
        (model.world(), model.plan())
    }

    /// A plan that was carried out up to where that memory was recorded.
    fn carried_out(memory: Memory) -> Done {
        let resource = serde_json::json!({
            "apiVersion": "vectorizer.hivellm.io/v1alpha1", "kind": "VectorizerCluster",
            "metadata": { "name": "demo", "namespace": "default" },
            "spec": {},
        });
        Done {
            resource: serde_json::from_value(resource).unwrap(),
            memory,
            recorded: true,
            refused: None,
            troubles: Vec::new(),
            applied: Vec::new(),
            refusals: Vec::new(),
            pruned: Vec::new(),
            labelled: Vec::new(),
            secrets_written: false,
            namespace_going: false,
        }
    }

    /// The memories that a plan records, in order.
    fn records(plan: &Plan) -> Vec<Memory> {
        let mut found = Vec::new();
        for step in &plan.steps {
            if let Step::Record(memory) = step {
                found.push((**memory).clone());
            }
        }
        found
    }

    fn said(status: &ClusterStatus, of: &str) -> (String, String, String) {
        let found = status.conditions.iter().find(|c| c.type_ == of);
        let found = found.map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()));
        found.unwrap_or_default()
    }

    #[test]
    fn after_a_refusal_the_status_is_what_was_recorded_before_it_and_says_why() {
        let (world, plan) = switchover();
        let handing_over = records(&plan)[1].clone();
        let step = handing_over.target.as_ref().map(|t| t.step);
        assert_eq!(step, Some(TargetStep::HandingOver));
        let mut done = carried_out(handing_over.clone());
        done.refused = Some(Refused::NoHandover);
        let status = status_after(&world, &plan, &done);
        assert_eq!(status.master, handing_over.master, "nobody was crowned");
        assert_eq!(status.last_promotion, None);
        let promoted = status.conditions.iter();
        assert_eq!(
            promoted
                .filter(|c| c.type_ == condition::PROMOTION_SUCCEEDED)
                .count(),
            0
        );
        let target = status.target.clone().unwrap();
        let why = Refused::NoHandover.to_string();
        assert_eq!(
            (target.step, target.message),
            (TargetStep::HandingOver, Some(why.clone()))
        );
        let degraded = ("True".to_owned(), reason::COMMAND_REFUSED.to_owned(), why);
        assert_eq!(said(&status, condition::DEGRADED), degraded);
    }

    #[test]
    fn after_a_promotion_the_status_is_the_plans_with_how_long_writes_paused() {
        let (world, plan) = switchover();
        let mut memory = records(&plan).pop().unwrap();
        let last = memory.last_promotion.as_mut().unwrap();
        last.write_pause_ms = Some(17);
        let status = status_after(&world, &plan, &carried_out(memory.clone()));
        assert_eq!(status.last_promotion, memory.last_promotion);
        assert_ne!(status.master, world.status.master);
        assert_eq!(status.target, None);
        let succeeded = said(&status, condition::PROMOTION_SUCCEEDED);
        assert_eq!(succeeded.0, "True");
        assert_eq!(said(&status, condition::DEGRADED).0, "False");
    }

    #[test]
    fn what_was_forgiven_is_said_once_and_changes_nothing_else() {
        let mut model = Model::healthy(3);
        model.pass();
        let (world, plan) = (model.world(), model.plan());
        let mut done = carried_out(Memory::of(&world.status));
        done.recorded = false;
        done.troubles = ["label of a: no", "label of a: no", "follow to b: no"]
            .map(str::to_owned)
            .to_vec();
        let status = status_after(&world, &plan, &done);
        let degraded = said(&status, condition::DEGRADED);
        assert_eq!(degraded.2, "label of a: no; follow to b: no");
        let without = |mut status: ClusterStatus| {
            status.conditions.retain(|c| c.type_ != condition::DEGRADED);
            status
        };
        assert_eq!(without(status), without(plan.status.clone()));
        done.troubles.clear();
        assert_eq!(status_after(&world, &plan, &done), plan.status);
    }
}
