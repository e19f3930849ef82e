//! What a person types to ask for a promotion, so that a message can say it.
//!
//! The whole of `spec.promote` is replaced. A merge patch would keep what an earlier request said: its target, which may
//! be the master that is gone by now, and its mode. A refusal whose cause that may have been therefore says a command,
//! under a requestID that was not used yet.

use super::Draft;
use crate::crd::PromoteMode;

/// The command that asks for a promotion: of `target`, or else of the most advanced replica.
pub(super) fn command(draft: &Draft<'_>, mode: PromoteMode, target: Option<&str>) -> String {
    let cluster = &draft.world.cluster;
    let request = unused(draft, mode);
    let target = target.map_or_else(String::new, |pod| format!(r#", "target": "{pod}""#));
    let mode = match mode {
        PromoteMode::Switchover => "",
        PromoteMode::Failover => r#", "mode": "Failover""#,
    };
    format!(
        r#"kubectl patch vc {} -n {} --type=json -p '[{{"op": "add", "path": "/spec/promote", "value": {{"requestID": "{request}"{target}{mode}}}}}]'"#,
        cluster.name, cluster.namespace
    )
}

/// A requestID that no request has had. The same as long as nothing happens, so that a message with it is no news.
fn unused(draft: &Draft<'_>, mode: PromoteMode) -> String {
    let word = match mode {
        PromoteMode::Switchover => "switchover",
        PromoteMode::Failover => "failover",
    };
    let asked = draft.world.cluster.spec.promote.as_ref();
    let under_way = draft.memory.target.as_ref();
    let used = |id: &String| {
        draft.memory.handled_requests.contains(id)
            || asked.is_some_and(|p| p.request_id == *id)
            || under_way.is_some_and(|t| t.request_id.as_ref() == Some(id))
    };
    let epoch = draft.memory.master.as_ref().map_or(0, |m| m.epoch);
    let names = std::iter::once(format!("{word}-from-epoch-{epoch}"));
    let mut names = names.chain((2..).map(|n: u32| format!("{word}-from-epoch-{epoch}-{n}")));
    names.find(|id| !used(id)).unwrap_or_default()
}
