//! What a run is about: how many nodes, which faults, for how long.

use super::Time;
use super::random::Random;
use crate::concern::Level;

#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) nodes: usize,
    /// No faults from then on.
    pub(super) heal_at: Time,
    /// The end.
    pub(super) end_at: Time,
    /// Whether faults happen by chance.
    pub(super) faults: bool,
    /// Whether clocks run at different rates.
    pub(super) skewed: bool,
    /// Whether wall clocks are set by hand now and then.
    pub(super) jumps: bool,
    /// Whether switchovers are asked for by chance.
    pub(super) switchovers: bool,
    /// Operations kept in the log.
    pub(super) log_size: u64,
    /// Whether checkpoints are written, and the log is cut behind them.
    pub(super) checkpoints: bool,
    /// Replicas that have to acknowledge a write; 0 for asynchronous replication. Changed by chance where it is not 0.
    pub(super) acks: u32,
    /// What an acknowledgement has to say.
    pub(super) level: Level,
    /// How many volumes may be lost.
    pub(super) empties: u32,
}

impl Course {
    /// Everything happens.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random::new(!seed);
        Course {
            nodes: [3, 3, 3, 4, 5][random.below(5) as usize],
            heal_at: 9_000,
            // A stall of 5 s may have begun just before, and clients stop 1.5 s before the end.
            end_at: 18_000,
            faults: true,
            skewed: random.chance(70),
            jumps: true,
            switchovers: true,
            log_size: [40, 60, 300, 1_000_000][random.below(4) as usize],
            checkpoints: true,
            acks: [0, 0, 1, 1, 2][random.below(5) as usize],
            empties: u32::from(random.chance(40)),
            level: [Level::Durable, Level::Applied][random.below(2) as usize],
        }
    }

    /// Nothing happens that a script does not say.
    pub(super) fn scripted() -> Self {
        Course {
            nodes: 3,
            heal_at: 10_000,
            end_at: 14_000,
            faults: false,
            skewed: false,
            jumps: false,
            switchovers: false,
            log_size: 1_000_000,
            checkpoints: false,
            acks: 0,
            level: Level::Durable,
            empties: 0,
        }
    }
}
