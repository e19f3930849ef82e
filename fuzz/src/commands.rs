//! A node that is told one thing after the other, restarts, and receives data in between.

use std::collections::BTreeSet;

use uuid::Uuid;
use vectorizer_replication::command::{
    Command, Effect, HandedOver, RoleFacts, Standing, Transition, decide,
};
use vectorizer_replication::position::Position;

use crate::input::Input;

/// A new node, and what becomes of it.
pub fn run(mut input: Input<'_>) {
    let mut facts = RoleFacts {
        node_id: Uuid::from_u128(1),
        cluster: None,
        promised: 0,
        standing: Standing::Unassigned,
        writing: false,
        end: Position::ZERO,
        has_data: false,
        handed_over: None,
    };
    let mut opened = BTreeSet::new();
    while !input.is_empty() {
        match input.u8() % 16 {
            0 => facts.writing = false, // a restart
            1 => receive(&mut facts, u64::from(input.u8() % 3)),
            2 if facts.writing => facts.end.offset += 1,
            _ => {
                let command = command(&mut input, &facts);
                tell(&mut facts, &command, &mut opened);
            }
        }
    }
}

/// Data comes from the master that is followed.
fn receive(facts: &mut RoleFacts, count: u64) {
    if let Standing::Replica { epoch, .. } = facts.standing
        && epoch >= facts.end.epoch.max(1)
    {
        facts.has_data = true;
        if count > 0 {
            facts.end = Position::new(epoch, facts.end.offset + count);
        }
    }
}

fn tell(facts: &mut RoleFacts, command: &Command, opened: &mut BTreeSet<u64>) {
    let decided = decide(facts, command);
    assert_eq!(decided, decide(facts, command), "it is a pure function");
    let Ok(next) = decided else { return };
    holds(facts, command, &next);
    let was_writing = facts.writing;
    facts.cluster = next.cluster;
    facts.promised = next.promised;
    facts.standing = next.standing;
    facts.handed_over = next.handed_over;
    match next.effect {
        Effect::OpenEpoch(epoch) => {
            assert!(!was_writing, "one epoch at a time");
            assert!(opened.insert(epoch), "epoch {epoch} is opened twice");
            assert!(epoch > facts.end.epoch, "{epoch} after {}", facts.end);
            facts.writing = true;
            facts.has_data = true;
            facts.end = Position::new(epoch, facts.end.offset + 1);
        }
        Effect::StopWriting => facts.writing = false,
        Effect::None | Effect::EndSession | Effect::HoldWrites => {}
    }
    // Only the same process may be asked twice; retaking asks for an epoch that nobody had.
    if !matches!(
        command,
        Command::Retake { .. } | Command::FinishHandover { .. }
    ) {
        let again = decide(facts, command);
        let same = again.as_ref().is_ok_and(|again| !again.persists(facts));
        assert!(same, "{command:?} a second time: {again:?}");
    }
}

/// What holds for every command that is carried out.
fn holds(facts: &RoleFacts, command: &Command, next: &Transition) {
    assert!(
        next.promised >= facts.promised,
        "{command:?} takes a promise back"
    );
    assert!(facts.cluster.is_none() || next.cluster == facts.cluster);
    let epoch = match next.standing {
        Standing::Unassigned => 0,
        Standing::Master { epoch } | Standing::Replica { epoch, .. } => epoch,
    };
    assert!(
        epoch <= next.promised,
        "{command:?} serves above its promise"
    );
    if facts.writing && next.standing != facts.standing {
        assert_eq!(
            next.effect,
            Effect::StopWriting,
            "{command:?} lets a master go on"
        );
    }
    if let Standing::Master { epoch } = next.standing
        && next.standing != facts.standing
    {
        assert_eq!(next.effect, Effect::OpenEpoch(epoch), "{command:?}");
    }
    if next.effect == Effect::HoldWrites {
        assert!(!next.persists(facts), "nothing is decided yet");
    }
}

fn command(input: &mut Input<'_>, facts: &RoleFacts) -> Command {
    let cluster = Uuid::from_u128(if input.u8() % 16 == 15 { 3 } else { 2 });
    // Near what was promised, where it matters, or anything.
    let epoch = match input.u8() {
        near @ 0..128 => facts
            .promised
            .saturating_add(u64::from(near % 5))
            .saturating_sub(1),
        _ => input.number(),
    };
    let plan = HandedOver {
        from_epoch: if input.u8() % 4 == 3 {
            input.number()
        } else {
            facts.promised
        },
        epoch,
        target: Uuid::from_u128(u128::from(input.u8() % 3) + 1),
    };
    let address = || "10.0.0.1:7001".to_owned();
    match input.u8() % 11 {
        0 => Command::Initialize { cluster, epoch },
        1 => Command::Fence { cluster, epoch },
        2 => Command::Handover { cluster, plan },
        3 => Command::FinishHandover { plan },
        4 => Command::Promote {
            cluster,
            epoch,
            at: if input.u8() % 4 == 3 {
                Position::new(input.number(), input.number())
            } else {
                facts.end
            },
        },
        5 => Command::Follow {
            cluster,
            epoch,
            master_address: address(),
            master_url: None,
        },
        6 => Command::Retake { epoch },
        7 => Command::ConfiguredMaster,
        8 => Command::ConfiguredReplica {
            master_address: address(),
            master_url: None,
        },
        9 => Command::MasterSeen { cluster, epoch },
        _ => Command::Deposed { epoch },
    }
}
