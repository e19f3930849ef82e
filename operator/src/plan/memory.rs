//! What the operator remembers of a cluster from pass to pass, over its own death: a part of the status.

use uuid::Uuid;

use crate::crd::{
    ClusterStatus, ImageSource, Initialization, LastPromotion, MasterStatus, RecordedConcern,
    StatusMemory, TargetStatus,
};

/// The part of the status that is the operator's memory.
#[derive(Clone, PartialEq, Debug, Default)]
#[expect(missing_docs, reason = "documented in `ClusterStatus`")]
pub struct Memory {
    pub image: Option<String>,
    pub image_from: Option<ImageSource>,
    pub cluster: Option<Uuid>,
    pub initialization: Option<Initialization>,
    pub master: Option<MasterStatus>,
    pub target: Option<TargetStatus>,
    pub last_promotion: Option<LastPromotion>,
    pub handled_requests: Vec<String>,
    pub write_concern: Option<RecordedConcern>,
}

impl Memory {
    /// What a status remembers.
    pub fn of(status: &ClusterStatus) -> Self {
        Memory {
            image: status.image.clone(),
            image_from: status.image_from,
            cluster: status.cluster,
            initialization: status.memory.initialization,
            master: status.master.clone(),
            target: status.target.clone(),
            last_promotion: status.last_promotion.clone(),
            handled_requests: status.memory.handled_requests.clone(),
            write_concern: status.write_concern.clone(),
        }
    }

    /// Puts it into a status.
    pub fn write_to(&self, status: &mut ClusterStatus) {
        let Memory {
            image,
            image_from,
            cluster,
            initialization,
            master,
            target,
            last_promotion,
            handled_requests,
            write_concern,
        } = self.clone();
        status.image = image;
        status.image_from = image_from;
        status.cluster = cluster;
        status.memory = StatusMemory {
            initialization,
            handled_requests,
        };
        status.master = master;
        status.target = target;
        status.last_promotion = last_promotion;
        status.write_concern = write_concern;
    }

    /// Remembers that a request was dealt with.
    pub(super) fn handled(&mut self, request: &str) {
        const KEPT: usize = 32;
        self.handled_requests.retain(|id| id != request);
        self.handled_requests.push(request.to_owned());
        let excess = self.handled_requests.len().saturating_sub(KEPT);
        self.handled_requests.drain(..excess);
    }
}
