//! Where a replica goes on: for a sound log of the master's and whatever a replica says of its own.

use vectorizer_replication::handshake::{self, MasterLog, ReplicaLog, Start};
use vectorizer_replication::position::{LogEnd, Position};

use crate::input::Input;

/// One decision.
pub fn run(mut input: Input<'_>) {
    let master = master_log(&mut input);
    let replica = replica_log(&mut input);
    let common = handshake::common_offset(&replica, &master);
    assert!(common <= replica.end.position.offset && common <= master.end.position.offset);
    let chain_there = (!input.u8().is_multiple_of(4)).then(|| input.chain());
    let start = handshake::decide(&replica, &master, chain_there);
    assert_eq!(start, handshake::decide(&replica, &master, chain_there));
    let end = replica.end.position.offset;
    match start {
        Start::Continue { from } => {
            assert!(!replica.wants_snapshot);
            assert!(from >= master.first_offset.max(1), "{from} is gone");
            assert!(
                from <= master.end.position.offset + 1,
                "{from} is not there"
            );
            assert_eq!(from, end + 1, "neither a gap nor a repetition");
            if end > 0 {
                assert!(replica.has_data);
                assert_eq!(chain_there, Some(replica.end.chain));
            }
        }
        Start::Truncate { to } => {
            assert!(replica.has_data && !replica.wants_snapshot);
            let at = to.position.offset;
            assert!(0 < at && at < end, "{at} of {end}");
            assert!(at <= master.end.position.offset && at + 1 >= master.first_offset);
            assert_eq!(replica.history.epoch_at(at), to.position.epoch);
            assert_eq!(master.history.epoch_at(at), to.position.epoch);
            assert_eq!(chain_there, Some(to.chain));
        }
        Start::Snapshot { .. } => {}
    }
}

/// What a master knows of its own log: its parts fit each other.
pub fn master_log(input: &mut Input<'_>) -> MasterLog {
    let history = input.history();
    let offset = match history.last_first_offset() {
        0 => 0,
        first => first + u64::from(input.u8() % 8),
    };
    let position = Position::new(history.epoch_at(offset), offset);
    MasterLog {
        first_offset: 1 + u64::from(input.u8()) % (offset + 1),
        end: LogEnd {
            position,
            chain: input.chain(),
        },
        history,
    }
}

/// What a replica says of its own: anything that the codec lets through.
pub fn replica_log(input: &mut Input<'_>) -> ReplicaLog {
    let flags = input.u8();
    ReplicaLog {
        end: LogEnd {
            position: Position::new(input.number(), input.number()),
            chain: input.chain(),
        },
        history: input.history(),
        has_data: flags & 1 == 0,
        wants_snapshot: flags & 6 == 6,
    }
}
