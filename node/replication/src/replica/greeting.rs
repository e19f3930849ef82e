//! The beginning of a session: the master proves itself, decides where this replica goes on, and is accepted.

use super::{Decision, Loading, LocalLog, Output, Phase, ReplicaSession};
use crate::auth::{Nonces, Side};
use crate::breakage::{self, Breakage};
use crate::message::{Ack, Challenge, Hello, Master, Message, Reject, VERSION};
use crate::session::{Closed, Millis};

impl ReplicaSession {
    pub(super) fn challenge(&mut self, challenge: Challenge) {
        if challenge.version != VERSION {
            let text = format!(
                "the master chose version {}, not offered",
                challenge.version
            );
            return self.close(Closed::Protocol(text));
        }
        let nonces = Nonces {
            replica: self.config.link.nonce,
            master: challenge.nonce,
        };
        match (&self.config.link.token, challenge.has_token) {
            (Some(token), true) => {
                let proof = token.prove(Side::Replica, &nonces);
                self.send(Message::Proof(proof));
                self.phase = Phase::Proving(nonces);
            }
            (None, false) => {
                self.authenticated = true;
                self.phase = Phase::Deciding;
            }
            (Some(_), false) => {
                let text = "this node has a token and the master has none: give both the same";
                return self.close(Closed::Unauthenticated(text.to_owned()));
            }
            (None, true) => {
                let text = "the master requires a token and this node has none: give both the same";
                return self.close(Closed::Unauthenticated(text.to_owned()));
            }
        }
        self.hello();
    }

    pub(super) fn proof(&mut self, nonces: Nonces, proof: &[u8; 32]) {
        let token = self.config.link.token.as_ref();
        if !token.is_some_and(|t| t.verify(Side::Master, &nonces, proof)) {
            let text = "the master's token is another one than this node's";
            return self.close(Closed::Unauthenticated(text.to_owned()));
        }
        self.authenticated = true;
        self.phase = Phase::Deciding;
    }

    fn hello(&mut self) {
        let hello = Hello {
            cluster: self.config.cluster,
            node_id: self.config.link.node_id,
            boot_id: self.config.link.boot_id,
            name: self.config.name.clone(),
            advertised: self.config.advertised.clone(),
            promised: self.config.promised,
            durable: self.local.durable,
            applied: self.local.applied,
            log: self.local.log.clone(),
        };
        self.send(Message::Hello(Box::new(hello)));
    }

    pub(super) fn decided(&mut self, now: Millis, master: Master, decision: Decision) {
        if let Some(own) = self.config.cluster
            && own != master.cluster
        {
            let text = format!("this node's is {own}, the master's {}", master.cluster);
            return self.close(Closed::Refusing(Reject::WrongCluster(text)));
        }
        let promised = self.config.promised;
        if master.epoch < promised && !breakage::on(Breakage::DropEpochCheck) {
            return self.close(Closed::Refusing(Reject::StaleEpoch(promised)));
        }
        self.pulse.establish(now);
        self.epoch = master.epoch;
        self.master_end = self.master_end.max(master.end);
        self.phase = Phase::Accepting(Box::new(decision));
        if self.accepted {
            return self.master_accepted();
        }
        self.out.push_back(Output::AcceptMaster {
            cluster: master.cluster,
            epoch: master.epoch,
        });
    }

    pub(super) fn master_accepted(&mut self) {
        let phase = std::mem::replace(&mut self.phase, Phase::Streaming);
        let Phase::Accepting(decision) = phase else {
            self.phase = phase;
            return;
        };
        self.accepted = true;
        let end = self.local.log.end;
        match *decision {
            Decision::Continue(from) => {
                let next = end.position.offset.saturating_add(1);
                if from != next && !breakage::on(Breakage::ResumeOneOff) {
                    let text = format!("the master continues from {from}, the log from {next}");
                    return self.close(Closed::Mismatch(text));
                }
                self.next = end;
                self.ack = Ack {
                    chunks: 0,
                    taken: end.position.offset,
                    durable: self.local.durable.min(end.position.offset),
                    applied: self.local.applied.min(end.position.offset),
                };
                self.out.push_back(Output::Joined { full: false });
            }
            Decision::Truncate(to) if to.position.offset < end.position.offset => {
                self.phase = Phase::Truncating;
                self.out.push_back(Output::Truncate(to));
            }
            Decision::Truncate(to) => {
                let text = format!("the master cuts to {}, beyond the log", to.position);
                self.close(Closed::Mismatch(text));
            }
            Decision::Snapshot(begin) => {
                self.ack = Ack::default();
                self.phase = Phase::Loading(Loading {
                    start: begin.start,
                    next: 0,
                    bytes: 0,
                    crc: crc32fast::Hasher::new(),
                });
                self.out.push_back(Output::Joined { full: true });
                self.out.push_back(Output::SnapshotBegin(begin));
            }
        }
    }

    pub(super) fn truncated(&mut self, local: LocalLog) {
        if matches!(self.phase, Phase::Truncating) {
            self.local = local;
            self.phase = Phase::Deciding;
            self.hello();
        }
    }
}
