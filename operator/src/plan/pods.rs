//! Why pods do not come, in the words of the API server, the scheduler, the kubelet or a volume's provisioner: condition,
//! reason and, when it begins, an event. The words go when what they are about goes.

use super::{Draft, Note, Severity, Step, Verdict};
use crate::api::shortened;
use crate::names::{self, condition, reason};
use crate::world::{Member, Trouble, World};

/// Longest text about all pods together, in bytes.
const MOST: usize = 900;

/// Says what keeps wanted pods from coming.
pub(super) fn pods(draft: &mut Draft<'_>) {
    let world = draft.world;
    let told: Vec<_> = world.wanted().filter_map(|m| why(world, m)).collect();
    let Some((reason, _)) = told.first() else {
        return;
    };
    let mut texts: Vec<&str> = told.iter().map(|(_, text)| text.as_str()).collect();
    texts.dedup();
    let text = shortened(&texts.join("; "), MOST);
    draft.wait(Severity::Trouble, reason, text.clone());
    draft.stuck = true;
    draft.alarm(condition::PODS_RUNNING, reason, &text);
    draft.pods = Some(Verdict { reason, text });
}

/// Why a member's pod does not run, as far as Kubernetes says so.
fn why(world: &World, member: &Member) -> Option<(&'static str, String)> {
    let pod = &member.pod;
    let (reason, words) = match &member.seen {
        None => (reason::POD_NOT_CREATED, member.absent.as_ref()?),
        Some(seen) if seen.ready || seen.deleting => return None,
        Some(seen) => {
            // The scheduler says no more than that the claim is not bound.
            let claim = names::claim(pod);
            let volume = world.claims.get(&claim).filter(|c| !c.bound);
            if let Some((claim, words)) = volume.and_then(|c| Some((c, c.trouble.as_ref()?))) {
                let class = claim.class.as_deref().unwrap_or("the default");
                let text = format!(
                    "{pod}: volume {} of class {class}: {words}",
                    names::claim(pod)
                );
                return Some((reason::VOLUME_NOT_PROVISIONED, text));
            }
            let trouble = seen.trouble.as_ref()?;
            (reason_of(trouble), trouble)
        }
    };
    Some((reason, format!("{pod}: {words}")))
}

/// The reason of the condition for one of Kubernetes' own. The image's two take turns.
fn reason_of(trouble: &Trouble) -> &'static str {
    match trouble.reason.as_str() {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable" => reason::IMAGE_NOT_PULLED,
        "Unschedulable" | "SchedulingGated" | "FailedScheduling" => reason::POD_UNSCHEDULABLE,
        "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => reason::VOLUME_NOT_MOUNTED,
        "CrashLoopBackOff" => reason::CONTAINER_CRASHES,
        _ => reason::CONTAINER_NOT_STARTED,
    }
}

impl Draft<'_> {
    /// Tells the user when a condition begins to say this, and not as long as it does.
    pub(super) fn alarm(&mut self, of: &str, reason: &'static str, text: &str) {
        let stored = &self.world.status.conditions;
        let paused = self.world.cluster.spec.paused;
        let known = stored.iter().any(|c| c.type_ == of && c.reason == reason);
        if !known && !paused {
            self.steps.push(Step::Tell(Note {
                warning: true,
                reason,
                message: text.to_owned(),
            }));
        }
    }
}
