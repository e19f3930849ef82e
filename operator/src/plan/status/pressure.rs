//! Conditions of room: which node lacks some, on its disk or in memory, and what to do.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::told::Told;
use crate::names::{condition, reason};
use crate::world::{Member, World};

/// For so long after a container was killed for want of memory, that is said of a node that runs again.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);

/// What is to be said of disks and memory.
pub(super) fn pressure(world: &World) -> [Told; 2] {
    let disk = found(world, |m| m.state()?.disk_full.clone());
    let memory = found(world, |m| m.state()?.memory_full.clone());
    let killed = found(world, |m| killed(m, world.now));
    let memory = match killed {
        Some(killed) => Some((
            reason::OOM_KILLED,
            [Some(killed), memory]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("; "),
        )),
        None => memory.map(|full| (reason::MEMORY_FULL, full)),
    };
    let disk = disk.map(|full| (reason::DISK_FULL, full));
    let answered = world.members.iter().any(|m| m.state().is_some());
    [
        (condition::DISK_PRESSURE, disk),
        (condition::MEMORY_PRESSURE, memory),
    ]
    .map(|(of, found)| match found {
        Some((reason, text)) => Told::yes(of, reason, &text),
        None if answered => Told::no(of, reason::ENOUGH_ROOM, "no node that answers lacks room"),
        None => Told::unknown(of, reason::NOT_OBSERVED, "no node answers"),
    })
}

/// What is found of all nodes, each with its pod's name; `None` when nothing is.
fn found(world: &World, what: impl Fn(&Member) -> Option<String>) -> Option<String> {
    let found: Vec<_> = world
        .members
        .iter()
        .filter_map(|m| Some(format!("{}: {}", m.pod, what(m)?)))
        .collect();
    (!found.is_empty()).then(|| found.join("; "))
}

fn killed(member: &Member, now: Timestamp) -> Option<String> {
    let seen = member.seen.as_ref()?;
    let at = seen.oom_killed?;
    let over = seen.ready && now.duration_since(at) > REMEMBERED;
    (!over)
        .then(|| format!("killed at {at} for want of memory: raise spec.resources.limits.memory"))
}
