//! The decision itself, one small function per command.

use uuid::Uuid;

use super::{Command, Effect, HandedOver, Refusal, RoleFacts, Standing, Transition};
use crate::breakage::{self, Breakage};
use crate::position::Position;

/// A master whose epoch is further above the one promised is not believed: each grant is one more, and who was told by the
/// operator has promised already.
const FARTHEST_LEAP: u64 = 1 << 20;

/// Decides a command. Pure and total; a refusal changes nothing, and a command given twice gets the same answer twice.
pub fn decide(facts: &RoleFacts, command: &Command) -> Result<Transition, Refusal> {
    match command {
        Command::Initialize { cluster, epoch } => initialize(facts, *cluster, *epoch),
        Command::Fence { cluster, epoch } => fence(facts, *cluster, *epoch),
        Command::Handover { cluster, plan } => handover(facts, *cluster, *plan),
        Command::FinishHandover { plan } => finish_handover(facts, *plan),
        Command::Promote { cluster, epoch, at } => promote(facts, *cluster, *epoch, *at),
        Command::Follow {
            cluster,
            epoch,
            master_address,
            master_url,
        } => follow(
            facts,
            *cluster,
            Standing::Replica {
                epoch: *epoch,
                master_address: master_address.clone(),
                master_url: master_url.clone(),
            },
            *epoch,
        ),
        Command::Retake { epoch } => retake(facts, *epoch),
        Command::ConfiguredMaster => configured_master(facts),
        Command::ConfiguredReplica {
            master_address,
            master_url,
        } => configured_replica(facts, master_address, master_url),
        Command::MasterSeen { cluster, epoch } => master_seen(facts, *cluster, *epoch),
        Command::Deposed { epoch } => Ok(deposed(facts, *epoch)),
    }
}

fn initialize(facts: &RoleFacts, cluster: Uuid, epoch: u64) -> Result<Transition, Refusal> {
    at_least_one(epoch)?;
    same_cluster_or_none(facts, cluster)?;
    not_stale(facts, epoch)?;
    if facts.standing == (Standing::Master { epoch }) {
        return already_master(facts, epoch);
    }
    if facts.has_data || facts.end != Position::ZERO {
        return Err(Refusal::HasData { end: facts.end });
    }
    if let Standing::Replica { epoch: known, .. } = facts.standing
        && known >= epoch
    {
        return Err(spent_by_another(epoch));
    }
    Ok(open(facts, Some(cluster), epoch))
}

fn fence(facts: &RoleFacts, cluster: Uuid, epoch: u64) -> Result<Transition, Refusal> {
    at_least_one(epoch)?;
    same_cluster_or_none(facts, cluster)?;
    not_stale(facts, epoch)?;
    let mut next = unchanged(facts);
    next.cluster = Some(cluster);
    next.promised = epoch;
    match facts.standing {
        Standing::Unassigned => {}
        // At its own epoch there is nothing to stop: a fence forbids only what is below it.
        Standing::Master { epoch: own } if own >= epoch => {}
        Standing::Master { .. } => {
            // Persisted, so that it does not make itself master again after a restart.
            next.standing = Standing::Unassigned;
            next.effect = Effect::StopWriting;
        }
        Standing::Replica { epoch: own, .. } if own >= epoch => {}
        // It stays a replica, so that its greeting tells the old master of the new epoch.
        Standing::Replica { .. } => next.effect = Effect::EndSession,
    }
    Ok(next)
}

fn handover(facts: &RoleFacts, cluster: Uuid, plan: HandedOver) -> Result<Transition, Refusal> {
    same_cluster(facts, cluster)?;
    if facts.handed_over == Some(plan) && facts.promised == plan.epoch {
        return Ok(unchanged(facts));
    }
    can_hand_over(facts, plan)?;
    let mut next = unchanged(facts);
    next.effect = Effect::HoldWrites;
    Ok(next)
}

fn finish_handover(facts: &RoleFacts, plan: HandedOver) -> Result<Transition, Refusal> {
    can_hand_over(facts, plan)?;
    Ok(Transition {
        cluster: facts.cluster,
        promised: plan.epoch,
        standing: Standing::Unassigned,
        handed_over: Some(plan),
        effect: Effect::StopWriting,
    })
}

fn can_hand_over(facts: &RoleFacts, plan: HandedOver) -> Result<(), Refusal> {
    let own = Standing::Master {
        epoch: plan.from_epoch,
    };
    if facts.standing != own || !facts.writing {
        return Err(Refusal::NotMaster {
            epoch: plan.from_epoch,
            is: describe(facts),
        });
    }
    if plan.epoch <= plan.from_epoch {
        return Err(Refusal::NotAbove {
            from_epoch: plan.from_epoch,
            epoch: plan.epoch,
        });
    }
    if plan.target == facts.node_id {
        return Err(Refusal::TargetIsSelf);
    }
    Ok(())
}

fn promote(
    facts: &RoleFacts,
    cluster: Uuid,
    epoch: u64,
    at: Position,
) -> Result<Transition, Refusal> {
    at_least_one(epoch)?;
    same_cluster(facts, cluster)?;
    not_stale(facts, epoch)?;
    match facts.standing {
        Standing::Master { epoch: own } if own == epoch => return already_master(facts, epoch),
        Standing::Master { epoch: own } if facts.writing => {
            return Err(Refusal::StillMaster { epoch: own });
        }
        Standing::Replica { epoch: known, .. } if known >= epoch => {
            return Err(spent_by_another(epoch));
        }
        Standing::Unassigned | Standing::Master { .. } | Standing::Replica { .. } => {}
    }
    if facts.end.epoch >= epoch {
        return Err(spent_by_another(epoch));
    }
    if !facts.has_data {
        return Err(Refusal::NoData);
    }
    if facts.end != at && !breakage::on(Breakage::HandOverWithoutWaiting) {
        return Err(Refusal::WrongPosition { end: facts.end, at });
    }
    Ok(open(facts, facts.cluster, epoch))
}

fn follow(
    facts: &RoleFacts,
    cluster: Uuid,
    standing: Standing,
    epoch: u64,
) -> Result<Transition, Refusal> {
    at_least_one(epoch)?;
    same_cluster_or_none(facts, cluster)?;
    not_stale(facts, epoch)?;
    let effect = match &facts.standing {
        Standing::Master { epoch: own } if *own >= epoch => {
            return Err(Refusal::OwnEpoch { epoch: *own });
        }
        Standing::Master { .. } => Effect::StopWriting,
        same if *same == standing => Effect::None,
        Standing::Unassigned | Standing::Replica { .. } => Effect::EndSession,
    };
    Ok(Transition {
        cluster: Some(cluster),
        promised: epoch,
        standing,
        // Kept: the former master goes on to forward late writes, and its answer stays the same.
        handed_over: facts.handed_over,
        effect,
    })
}

fn retake(facts: &RoleFacts, epoch: u64) -> Result<Transition, Refusal> {
    let Standing::Master { epoch: own } = facts.standing else {
        return Err(Refusal::NotMaster {
            epoch,
            is: describe(facts),
        });
    };
    not_stale(facts, epoch)?;
    if facts.writing {
        return Err(Refusal::StillMaster { epoch: own });
    }
    if own >= epoch {
        return Err(Refusal::EpochSpent {
            epoch,
            by: "by an earlier process of this node",
        });
    }
    if facts.end.epoch >= epoch {
        return Err(spent_by_another(epoch));
    }
    Ok(open(facts, facts.cluster, epoch))
}

fn configured_master(facts: &RoleFacts) -> Result<Transition, Refusal> {
    if facts.cluster.is_none() {
        return Err(Refusal::NoCluster);
    }
    if facts.writing {
        return Ok(unchanged(facts));
    }
    match facts.standing {
        Standing::Replica { .. } if !facts.has_data => return Err(Refusal::NoData),
        Standing::Unassigned | Standing::Master { .. } | Standing::Replica { .. } => {}
    }
    let known = facts.promised.max(facts.end.epoch);
    let next = known.checked_add(1).ok_or(Refusal::NoEpochLeft)?;
    Ok(open(facts, facts.cluster, next))
}

fn configured_replica(
    facts: &RoleFacts,
    master_address: &str,
    master_url: &Option<String>,
) -> Result<Transition, Refusal> {
    let mut next = unchanged(facts);
    if let Standing::Master { epoch } = facts.standing
        && facts.writing
    {
        return Err(Refusal::StillMaster { epoch });
    }
    next.standing = Standing::Replica {
        epoch: facts.promised,
        master_address: master_address.to_owned(),
        master_url: master_url.clone(),
    };
    if next.standing != facts.standing {
        next.effect = Effect::EndSession;
    }
    Ok(next)
}

fn master_seen(facts: &RoleFacts, cluster: Uuid, epoch: u64) -> Result<Transition, Refusal> {
    at_least_one(epoch)?;
    same_cluster_or_none(facts, cluster)?;
    not_stale(facts, epoch)?;
    // Said by whoever answers at the master's address: promised, it leaves no epoch for anybody.
    if epoch - facts.promised.min(epoch) > FARTHEST_LEAP {
        return Err(Refusal::TooFar {
            epoch,
            promised: facts.promised,
        });
    }
    let Standing::Replica {
        master_address,
        master_url,
        ..
    } = &facts.standing
    else {
        return Err(Refusal::NotReplica);
    };
    let mut next = unchanged(facts);
    next.cluster = Some(cluster);
    next.promised = epoch;
    next.standing = Standing::Replica {
        epoch,
        master_address: master_address.clone(),
        master_url: master_url.clone(),
    };
    Ok(next)
}

fn deposed(facts: &RoleFacts, epoch: u64) -> Transition {
    let mut next = unchanged(facts);
    match facts.standing {
        Standing::Master { .. } if epoch > facts.promised => {
            next.promised = epoch;
            next.standing = Standing::Unassigned;
            next.effect = Effect::StopWriting;
        }
        // Others claim nothing that a higher epoch could take away; they promise when they are told.
        Standing::Unassigned | Standing::Master { .. } | Standing::Replica { .. } => {}
    }
    next
}

fn unchanged(facts: &RoleFacts) -> Transition {
    Transition {
        cluster: facts.cluster,
        promised: facts.promised,
        standing: facts.standing.clone(),
        handed_over: facts.handed_over,
        effect: Effect::None,
    }
}

fn open(facts: &RoleFacts, cluster: Option<Uuid>, epoch: u64) -> Transition {
    Transition {
        cluster: cluster.or(facts.cluster),
        promised: epoch,
        standing: Standing::Master { epoch },
        handed_over: None,
        effect: Effect::OpenEpoch(epoch),
    }
}

fn already_master(facts: &RoleFacts, epoch: u64) -> Result<Transition, Refusal> {
    if facts.writing {
        return Ok(unchanged(facts));
    }
    // The earlier process may have sent operations of this epoch to a replica and lost them itself.
    Err(Refusal::EpochSpent {
        epoch,
        by: "by an earlier process of this node",
    })
}

fn spent_by_another(epoch: u64) -> Refusal {
    Refusal::EpochSpent {
        epoch,
        by: "by another node that this one follows or has followed",
    }
}

fn at_least_one(epoch: u64) -> Result<(), Refusal> {
    if epoch == 0 {
        return Err(Refusal::EpochZero);
    }
    Ok(())
}

fn not_stale(facts: &RoleFacts, epoch: u64) -> Result<(), Refusal> {
    if epoch < facts.promised && !breakage::on(Breakage::DropEpochCheck) {
        return Err(Refusal::StaleEpoch {
            epoch,
            promised: facts.promised,
        });
    }
    Ok(())
}

fn same_cluster(facts: &RoleFacts, found: Uuid) -> Result<(), Refusal> {
    match facts.cluster {
        None => Err(Refusal::NoCluster),
        Some(own) if own != found => Err(Refusal::WrongCluster { own, found }),
        Some(_) => Ok(()),
    }
}

fn same_cluster_or_none(facts: &RoleFacts, found: Uuid) -> Result<(), Refusal> {
    match facts.cluster {
        None => Ok(()),
        Some(_) => same_cluster(facts, found),
    }
}

fn describe(facts: &RoleFacts) -> String {
    match &facts.standing {
        Standing::Unassigned => format!("has no role and promises epoch {}", facts.promised),
        Standing::Master { epoch } if facts.writing => format!("is master in epoch {epoch}"),
        Standing::Master { epoch } => {
            format!("was master in epoch {epoch} and has not opened another since its restart")
        }
        Standing::Replica { master_address, .. } => format!("is a replica of {master_address}"),
    }
}
