//! The replica's side: connects to the master that this node is told to follow, and again when the connection is lost.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;
use vectorizer_api::replication::Role;

use super::receive::{End, receive};
use super::{LinkContext, LinkStats};
use crate::writer::NodeState;

/// The first pause between attempts; doubled each time, up to the configured interval.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A copy that does not fit its master's log is replaced by a full sync; when that happens again within this time,
/// something is wrong that only a person can mend.
const REPAIR_ONCE_IN: Duration = Duration::from_secs(600);

/// Follows whatever master the writer's state names, as long as it names one. Never ends by itself.
pub fn spawn_replica(context: LinkContext) -> JoinHandle<()> {
    tokio::spawn(async move { run(&context).await })
}

/// Whom to follow. Any change ends the session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Target {
    /// The master's replication address.
    pub(super) address: String,
    /// A fence ends sessions with lower masters; the next greeting tells them why.
    pub(super) promised: u64,
}

impl Target {
    /// Whom a node in this state follows.
    pub(super) fn of(state: &NodeState) -> Option<Self> {
        match (state.role, &state.master_address) {
            (Role::Replica, Some(address)) => Some(Target {
                address: address.clone(),
                promised: state.promised,
            }),
            (Role::Replica | Role::Master | Role::Unassigned, _) => None,
        }
    }
}

async fn run(context: &LinkContext) {
    let mut state = context.writer.state();
    let mut pause = Pause::new(context.options.reconnect);
    let mut broken: Option<Instant> = None;
    let mut wants_snapshot = false;
    // The master may not have seen yet that the token changed, or this node may not.
    let mut with_former = false;
    loop {
        let target = Target::of(&state.borrow_and_update());
        let Some(target) = target else {
            if state.changed().await.is_err() {
                return;
            }
            pause.reset();
            continue;
        };
        LinkStats::add(&context.stats.connects, 1);
        let (token, former) = context.tokens();
        let token = former.filter(|_| with_former).or(token);
        let session = receive(context, &target, &mut state, token, wants_snapshot).await;
        context.stats.is_cut_off(session.end.trouble());
        if session.joined {
            pause.reset();
        }
        wants_snapshot &= !session.synced;
        if let End::Unlike(found) = &session.end {
            context.writer.unlike(found.clone()).await;
        }
        let wait = match session.end {
            End::Changed => Some(Duration::ZERO),
            End::Lost(reason) => {
                let at = context.writer.log().end().position;
                tracing::warn!(master = %target.address, reason, %at, "replication: the master is not followed now");
                Some(pause.next())
            }
            End::Unauthenticated(reason) => {
                tracing::warn!(master = %target.address, reason, with_former, "replication: the master is not followed now");
                with_former = !with_former;
                Some(pause.next())
            }
            End::Busy(wait) => Some(wait.max(pause.next())),
            End::Broken(reason) | End::Unlike(reason) => {
                let again = broken.replace(Instant::now());
                wants_snapshot = again.is_none_or(|at| at.elapsed() > REPAIR_ONCE_IN);
                tracing::error!(
                    master = %target.address, reason, wants_snapshot,
                    "replication: this copy does not fit its master's log"
                );
                // Never again by itself: the same would happen for ever.
                wants_snapshot.then(|| pause.next())
            }
        };
        if rest(&mut state, &target, wait).await.is_err() {
            return;
        }
        if Target::of(&state.borrow()).as_ref() != Some(&target) {
            pause.reset();
        }
    }
}

/// Waits so long, or for ever, or until there is somebody else to follow.
async fn rest(
    state: &mut watch::Receiver<NodeState>,
    target: &Target,
    wait: Option<Duration>,
) -> Result<(), watch::error::RecvError> {
    let other = state.wait_for(|s| Target::of(s).as_ref() != Some(target));
    match wait {
        Some(wait) => match tokio::time::timeout(wait, other).await {
            Ok(changed) => changed.map(drop),
            Err(_) => Ok(()),
        },
        None => other.await.map(drop),
    }
}

/// Growing pauses between attempts.
struct Pause {
    next: Duration,
    longest: Duration,
}

impl Pause {
    fn new(longest: Duration) -> Self {
        let mut pause = Pause {
            next: FIRST_PAUSE,
            longest: longest.max(FIRST_PAUSE),
        };
        pause.reset();
        pause
    }

    fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }

    /// The pause to make now, between 3/4 and 5/4 of what it grows to: replicas do not come back all at once.
    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        let random = f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0;
        pause.mul_f64(0.75 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_interval_with_jitter_and_begin_again_after_success() {
        let mut pause = Pause::new(Duration::from_secs(5));
        let expected = [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000];
        for ms in expected {
            let next = pause.next().as_millis();
            assert!((ms * 3 / 4..=ms * 5 / 4).contains(&next), "{next} for {ms}");
        }
        pause.reset();
        assert!(pause.next() <= Duration::from_millis(125));
    }
}
