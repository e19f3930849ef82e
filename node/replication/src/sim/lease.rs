//! The Lease as the API server keeps it: every change replaces what was read.

/// Who may be master.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Lease {
    pub(super) epoch: u64,
    /// Node and the boot of its process; `None` when vacant.
    pub(super) holder: Option<(usize, u64)>,
    /// Counts every change and renewal.
    pub(super) version: u64,
}

impl Lease {
    /// Renewed by its holder's process. Returns whether it still is.
    pub(super) fn renew(&mut self, node: usize, boot: u64, epoch: u64) -> bool {
        let ours = self.holder == Some((node, boot)) && self.epoch == epoch;
        self.version += u64::from(ours);
        ours
    }

    /// A restarted master takes the next epoch, if the Lease still names its node and nothing above it is promised.
    pub(super) fn retake(&mut self, node: usize, boot: u64, promised: u64) -> Option<u64> {
        let ours = self.holder.is_some_and(|(holder, _)| holder == node);
        if !ours || self.epoch < promised {
            return None;
        }
        self.grant(self.epoch + 1, Some((node, boot)));
        Some(self.epoch)
    }

    /// Written by the operator.
    pub(super) fn grant(&mut self, epoch: u64, holder: Option<(usize, u64)>) {
        self.epoch = epoch;
        self.holder = holder;
        self.version += 1;
    }
}
