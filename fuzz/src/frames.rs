//! Frames, messages, batches and records: whatever arrives is refused or understood, and what is understood is encoded
//! to the same bytes again. No memory is taken for a length that nothing stands behind.

use bytes::{Bytes, BytesMut};
use vectorizer_node::store::{Op, Record};
use vectorizer_replication::batch::{self, Batch};
use vectorizer_replication::frame::{self, Frame, Kind, MAX_AFTER_AUTH, MAX_BEFORE_AUTH};
use vectorizer_replication::message::Message;

use crate::input::Input;

/// The first byte says what the rest is.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.u8() % 4 {
        0 => stream(input),
        1 => sealed_frame(input),
        2 => sealed_batches(input),
        _ => sealed_records(input),
    }
}

/// A stream that arrives in pieces.
fn stream(mut input: Input<'_>) {
    let limit = [MAX_BEFORE_AUTH, MAX_AFTER_AUTH][usize::from(input.u8() % 2)];
    let mut buffer = BytesMut::new();
    let mut arrived = 0;
    while !input.is_empty() {
        let sent = sent(&mut input);
        let piece_len = usize::from(input.u8()) + 1;
        for piece in sent.chunks(piece_len) {
            buffer.extend_from_slice(piece);
            arrived += piece.len();
            if !take_frames(&mut buffer, limit, arrived) {
                return;
            }
        }
    }
}

/// What a peer may send: a frame, the beginning of one that never comes, or anything.
fn sent(input: &mut Input<'_>) -> Vec<u8> {
    let op = input.u8() % 8;
    let kind = Kind::ALL[usize::from(input.u8()) % Kind::ALL.len()];
    match op {
        0..5 => frame::encode_small(kind, input.blob()).to_vec(),
        5 | 6 => {
            let mut head = frame::encode_small(kind, &[])[..frame::HEADER_LEN].to_vec();
            let len = (input.u64() >> (input.u8() % 64)) as u32;
            head[6..10].copy_from_slice(&len.to_le_bytes());
            let crc = crc32fast::hash(&head[..10]);
            head[10..14].copy_from_slice(&crc.to_le_bytes());
            head
        }
        _ => input.blob().to_vec(),
    }
}

/// Takes off what is complete; false once the stream is of no more use.
fn take_frames(buffer: &mut BytesMut, limit: usize, arrived: usize) -> bool {
    loop {
        let before = buffer.len();
        let decoded = frame::decode(buffer, limit);
        // Room for one frame of the longest length, doubled as buffers grow, beside what is there.
        let most = 2 * (arrived + limit + frame::HEADER_LEN + frame::TRAILER_LEN);
        assert!(buffer.capacity() <= most, "{} bytes", buffer.capacity());
        match decoded {
            Ok(Some(frame)) => {
                assert!(frame.payload.len() <= limit);
                assert!(buffer.len() < before, "it was taken off the front");
                understood(frame);
            }
            Ok(None) => {
                assert_eq!(buffer.len(), before);
                return true;
            }
            Err(_) => {
                assert_eq!(buffer.len(), before);
                return false;
            }
        }
    }
}

/// Any payload in a frame whose check sums are right.
fn sealed_frame(mut input: Input<'_>) {
    let kind = Kind::ALL[usize::from(input.u8()) % Kind::ALL.len()];
    let payload = input.rest();
    let mut buffer = BytesMut::from(&frame::encode_small(kind, payload)[..]);
    let frame = decode_one(&mut buffer);
    assert_eq!((frame.kind, &frame.payload[..]), (kind, payload));
    understood(frame);
}

/// Batches of any header and payload whose check sums are right.
fn sealed_batches(mut input: Input<'_>) {
    let mut bytes = Vec::new();
    while !input.is_empty() && bytes.len() < 1 << 20 {
        let mut batch = vec![0; batch::HEADER_LEN];
        let head = input.take(batch::HEADER_LEN - 8);
        batch[8..8 + head.len()].copy_from_slice(head);
        batch.extend_from_slice(input.blob());
        seal_batch(&mut batch);
        bytes.extend_from_slice(&batch);
    }
    understood(Frame {
        kind: Kind::Batches,
        payload: Bytes::from(bytes),
    });
}

/// Puts length and CRC32 of a batch right.
pub fn seal_batch(batch: &mut [u8]) {
    let len = (batch.len() - 8) as u32;
    let crc = crc32fast::hash(&batch[8..]);
    batch[0..4].copy_from_slice(&len.to_le_bytes());
    batch[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Records of any content whose lengths are right.
fn sealed_records(mut input: Input<'_>) {
    let mut payload = Vec::new();
    let mut count = 0;
    while !input.is_empty() && payload.len() < 1 << 20 {
        let record = input.blob();
        payload.extend_from_slice(&(record.len() as u32).to_le_bytes());
        payload.extend_from_slice(record);
        count += 1;
    }
    if let Ok(batch) = Batch::encode(1, 1, count, 0, Default::default(), &payload) {
        records(&batch);
    }
}

/// What a frame holds is refused, or comes out again as it came in.
fn understood(frame: Frame) {
    let (kind, payload) = (frame.kind, frame.payload.clone());
    let Ok(message) = Message::decode(frame) else {
        return;
    };
    if let Message::Batches(batches) = &message {
        batches.iter().for_each(records);
    }
    let mut parts: Vec<Bytes> = Vec::new();
    message.encode(&mut parts);
    let mut buffer: BytesMut = parts.iter().flat_map(|part| part.to_vec()).collect();
    let again = decode_one(&mut buffer);
    assert_eq!(
        (again.kind, &again.payload),
        (kind, &payload),
        "{message:?}"
    );
}

fn decode_one(buffer: &mut BytesMut) -> Frame {
    let frame = frame::decode(buffer, MAX_AFTER_AUTH);
    assert!(buffer.is_empty(), "nothing is left over");
    frame.unwrap().unwrap()
}

/// A batch's records are refused, or come out again as they came in; both ways of reading them agree.
fn records(batch: &Batch) {
    assert!(batch.first_offset() >= 1 && batch.last_offset() >= batch.first_offset());
    let mut copy = batch.bytes().clone();
    assert_eq!(Batch::decode(&mut copy).as_ref(), Ok(batch));
    let payload = batch.payload();
    let records = Record::decode_batch(batch);
    let ops = Op::decode_batch(batch, &payload);
    assert_eq!(records.is_ok(), ops.is_ok(), "{records:?} or {ops:?}");
    let Ok(records) = records else { return };
    let mut again = BytesMut::new();
    records.iter().for_each(|record| record.encode(&mut again));
    assert_eq!(again, payload, "{records:?}");
}
