//! Reads fields off the front of a payload, none of them trusted to be there.

use bytes::{Buf, Bytes};
use uuid::Uuid;

use super::super::{Ack, Master, Reject};
use super::{MAX_EPOCHS, MAX_TEXT, MessageError};
use crate::frame::{Frame, Kind};
use crate::position::{Chain, EpochStart, History, LogEnd, Position};

/// What is left of a payload.
pub(super) struct Reader {
    kind: Kind,
    buf: Bytes,
}

macro_rules! integer {
    ($($name:ident $get:ident;)*) => {$(
        pub(super) fn $name(&mut self, field: &'static str) -> Result<$name, MessageError> {
            self.need(field, size_of::<$name>())?;
            Ok(self.buf.$get())
        }
    )*};
}

impl Reader {
    pub(super) fn new(frame: Frame) -> Self {
        Reader {
            kind: frame.kind,
            buf: frame.payload,
        }
    }

    /// Number of bytes left.
    pub(super) fn left(&self) -> usize {
        self.buf.len()
    }

    integer! { u16 get_u16_le; u32 get_u32_le; u64 get_u64_le; u128 get_u128_le; }

    fn need(&self, field: &'static str, len: usize) -> Result<(), MessageError> {
        if self.buf.len() < len {
            let kind = self.kind;
            return Err(MessageError::Short { kind, field });
        }
        Ok(())
    }

    pub(super) fn impossible(&self, field: &'static str) -> MessageError {
        let kind = self.kind;
        MessageError::Field { kind, field }
    }

    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.buf)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, MessageError> {
        self.need(field, 1)?;
        Ok(self.buf.get_u8())
    }

    pub(super) fn bool(&mut self, field: &'static str) -> Result<bool, MessageError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.impossible(field)),
        }
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], MessageError> {
        self.need(field, N)?;
        let mut out = [0; N];
        self.buf.copy_to_slice(&mut out);
        Ok(out)
    }

    pub(super) fn uuid(&mut self, field: &'static str) -> Result<Uuid, MessageError> {
        Ok(Uuid::from_bytes(self.array(field)?))
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, MessageError> {
        let len = usize::from(self.u16(field)?);
        if len > MAX_TEXT {
            return Err(self.impossible(field));
        }
        self.need(field, len)?;
        let bytes = self.buf.split_to(len);
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.impossible(field)),
        }
    }

    pub(super) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, MessageError>,
    ) -> Result<Option<T>, MessageError> {
        if self.bool(field)? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(super) fn position(&mut self, field: &'static str) -> Result<Position, MessageError> {
        Ok(Position::new(self.u64(field)?, self.u64(field)?))
    }

    pub(super) fn end(&mut self) -> Result<LogEnd, MessageError> {
        Ok(LogEnd {
            position: self.position("end")?,
            chain: Chain(self.u128("chain")?),
        })
    }

    pub(super) fn history(&mut self) -> Result<History, MessageError> {
        let count = self.u32("history")? as usize;
        if count > MAX_EPOCHS {
            return Err(self.impossible("history"));
        }
        // Checked before anything is allocated for it.
        self.need("history", count * 32)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(EpochStart {
                epoch: self.u64("history")?,
                first_offset: self.u64("history")?,
                chain: Chain(self.u128("history")?),
            });
        }
        let sound = entries.iter().all(|e| e.epoch > 0 && e.first_offset > 0);
        match History::new(entries) {
            Some(history) if sound => Ok(history),
            Some(_) | None => Err(self.impossible("history")),
        }
    }

    pub(super) fn master(&mut self) -> Result<Master, MessageError> {
        Ok(Master {
            cluster: self.uuid("cluster")?,
            epoch: self.u64("epoch")?,
            node_id: self.uuid("node id")?,
            end: self.position("end")?,
        })
    }

    pub(super) fn ack(&mut self) -> Result<Ack, MessageError> {
        Ok(Ack {
            chunks: self.u32("chunks")?,
            taken: self.u64("taken")?,
            durable: self.u64("durable")?,
            applied: self.u64("applied")?,
        })
    }

    pub(super) fn reject(&mut self) -> Result<Reject, MessageError> {
        Ok(match self.u8("reason")? {
            1 => Reject::StaleEpoch(self.u64("epoch")?),
            2 => Reject::WrongCluster(self.text("text")?),
            3 => Reject::Unauthenticated(self.text("text")?),
            4 => Reject::Busy(self.u32("ms")?),
            5 => Reject::Version {
                found_min: self.u16("version")?,
                found_max: self.u16("version")?,
                own: self.u16("version")?,
            },
            6 => Reject::NotMaster(self.option("address", |r| r.text("address"))?),
            7 => Reject::Protocol(self.text("text")?),
            _ => return Err(self.impossible("reason")),
        })
    }
}
