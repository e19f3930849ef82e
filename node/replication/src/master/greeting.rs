//! The beginning of a session: who is there, may it be fed, and from where.

use super::{MasterSession, Output, Peer, Phase, Serving, SyncKind};
use crate::auth::{Nonces, Side};
use crate::breakage::{self, Breakage};
use crate::handshake::{self, MasterLog, Start};
use crate::message::{Ack, Challenge, FEATURES, Greet, Hello, Message, Reject, VERSION};
use crate::position::{Chain, Position};
use crate::session::Millis;

/// A replica says Hello at most so often in one session: once, and once more after each cut of its log.
const MAX_HELLOS: u32 = 3;

impl MasterSession {
    pub(super) fn greet(&mut self, greet: Greet) {
        if !(greet.min_version..=greet.max_version).contains(&VERSION) {
            return self.reject(Reject::Version {
                found_min: greet.min_version,
                found_max: greet.max_version,
                own: VERSION,
            });
        }
        let has_token = self.config.link.token.is_some();
        if has_token && !greet.has_token {
            let text = "this node requires a token and the peer has none: give both the same";
            return self.reject(Reject::Unauthenticated(text.to_owned()));
        }
        if !has_token && greet.has_token {
            let text = "the peer requires a token and this node has none: give both the same";
            return self.reject(Reject::Unauthenticated(text.to_owned()));
        }
        self.send(Message::Challenge(Challenge {
            version: VERSION,
            features: greet.features & FEATURES,
            has_token,
            nonce: self.config.link.nonce,
        }));
        self.authenticated = !has_token;
        self.phase = if has_token {
            Phase::Proving(Nonces {
                replica: greet.nonce,
                master: self.config.link.nonce,
            })
        } else {
            Phase::Hello
        };
    }

    pub(super) fn proof(&mut self, nonces: Nonces, proof: &[u8; 32]) {
        let link = &self.config.link;
        let tokens = [link.token.as_ref(), self.config.former.as_ref()];
        let known = tokens
            .into_iter()
            .flatten()
            .find(|token| token.verify(Side::Replica, &nonces, proof));
        let Some(own) = known.map(|token| token.prove(Side::Master, &nonces)) else {
            let text = "the peer's token is another one than this node's";
            return self.reject(Reject::Unauthenticated(text.to_owned()));
        };
        self.send(Message::Proof(own));
        self.authenticated = true;
        self.phase = Phase::Hello;
    }

    pub(super) fn hello(&mut self, now: Millis, hello: Box<Hello>) {
        let Serving::Master {
            cluster,
            epoch: _,
            history,
        } = &self.config.serving
        else {
            return self.refuse_as_not_master();
        };
        if hello.cluster.is_some_and(|c| c != *cluster) {
            let text = format!("this master's is {cluster}");
            return self.reject(Reject::WrongCluster(text));
        }
        if hello.cluster.is_none()
            && (hello.log.end.position != Position::ZERO || hello.promised > 0)
        {
            let text = "the peer holds data or a promise, and belongs to no cluster".to_owned();
            return self.reject(Reject::WrongCluster(text));
        }
        if hello.node_id == self.config.link.node_id {
            let text = "the peer has this master's own node id: its volume is a copy".to_owned();
            return self.reject(Reject::WrongCluster(text));
        }
        let log = MasterLog {
            first_offset: self.log.first_offset,
            end: self.log.end,
            history: history.clone(),
        };
        if self.deposed_by(hello.promised.max(hello.log.end.position.epoch)) {
            return;
        }
        self.hellos += 1;
        if self.hellos > MAX_HELLOS {
            let text = "the peer's log and this one do not come together".to_owned();
            return self.reject(Reject::Protocol(text));
        }
        self.pulse.establish(now);
        let common = handshake::common_offset(&hello.log, &log);
        let at_end = log.end;
        let held = common > 0 && common.saturating_add(1) >= log.first_offset && hello.log.has_data;
        self.phase = Phase::LookingUp { hello, log };
        if !held {
            self.chain_found(None);
        } else if common == at_end.position.offset {
            self.chain_found(Some(at_end.chain));
        } else {
            self.out.push_back(Output::LookUpChain(common));
        }
    }

    /// Whether the peer knows a higher epoch. Then this session is over, and so is this node's mastership, if the peer has
    /// proven that it belongs here: whoever reaches the port could otherwise end it for good, as a promise is durable.
    pub(super) fn deposed_by(&mut self, promised: u64) -> bool {
        let Serving::Master { epoch, .. } = self.config.serving else {
            return false;
        };
        if promised <= epoch || breakage::on(Breakage::DropEpochCheck) {
            return false;
        }
        if self.config.link.token.is_some() && self.authenticated {
            self.out.push_back(Output::Deposed(promised));
            self.reject(Reject::StaleEpoch(promised));
        } else {
            let text = format!(
                "epoch {promised} was promised, above this master's {epoch}, which without a token is not believed: \
                 set the same replication.token_file on both nodes"
            );
            self.reject(Reject::Unauthenticated(text));
        }
        true
    }

    pub(super) fn chain_found(&mut self, chain: Option<Chain>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Hello);
        let Phase::LookingUp { hello, log } = phase else {
            self.phase = phase;
            return;
        };
        let Some(master) = self.as_master() else {
            return self.refuse_as_not_master();
        };
        let has_data = hello.log.has_data;
        let peer = Peer {
            node_id: hello.node_id,
            boot_id: hello.boot_id,
            name: hello.name,
            advertised: hello.advertised,
        };
        match handshake::decide(&hello.log, &log, chain) {
            Start::Continue { from } => {
                self.sent = from - 1;
                self.acked = Ack {
                    chunks: 0,
                    taken: self.sent,
                    durable: hello.durable.min(self.sent),
                    applied: hello.applied.min(self.sent),
                };
                let end = self.log.end.position.offset;
                self.goal = (!has_data && self.acked.applied < end).then_some(end);
                self.phase = Phase::Streaming;
                self.send(Message::Continue(master, from));
                self.out.push_back(Output::Joined {
                    peer,
                    kind: SyncKind::Partial,
                    syncing: self.goal.is_some(),
                    ack: self.acked,
                });
            }
            // The phase is Hello again.
            Start::Truncate { to } => self.send(Message::Truncate(master, to)),
            Start::Snapshot { why } => {
                self.phase = Phase::SnapshotStarting;
                // Until the scan's end is known, nothing that is applied completes the sync.
                self.goal = Some(u64::MAX);
                self.out.push_back(Output::Joined {
                    peer,
                    kind: SyncKind::Full(why),
                    syncing: true,
                    ack: Ack::default(),
                });
                self.out.push_back(Output::StartSnapshot);
            }
        }
    }
}
