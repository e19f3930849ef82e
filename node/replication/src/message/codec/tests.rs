use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::frame::MAX_AFTER_AUTH;
use crate::position::{Chain, EpochStart};

fn through_the_wire(message: &Message) -> Message {
    let mut parts: Vec<Bytes> = Vec::new();
    message.encode(&mut parts);
    let mut buf: BytesMut = parts.iter().flat_map(|b| b.to_vec()).collect();
    let frame = frame::decode(&mut buf, MAX_AFTER_AUTH).unwrap().unwrap();
    assert!(buf.is_empty());
    Message::decode(frame).unwrap()
}

fn payload(message: &Message) -> (Kind, Bytes) {
    let mut buf = BytesMut::new();
    let kind = message.put(&mut buf);
    (kind, buf.freeze())
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u64>(), any::<u64>()).prop_map(|(e, o)| Position::new(e, o))
}

fn end() -> impl Strategy<Value = LogEnd> {
    (position(), any::<u128>()).prop_map(|(position, chain)| LogEnd {
        position,
        chain: Chain(chain),
    })
}

fn history() -> impl Strategy<Value = History> {
    prop::collection::vec((1..100_u64, 1..100_u64, any::<u128>()), 0..6).prop_map(|steps| {
        let mut history = History::default();
        let (mut epoch, mut first_offset) = (0, 0);
        for (e, o, chain) in steps {
            epoch += e;
            first_offset += o;
            history.open(EpochStart {
                epoch,
                first_offset,
                chain: Chain(chain),
            });
        }
        history
    })
}

fn master() -> impl Strategy<Value = Master> {
    (uuid(), any::<u64>(), uuid(), position()).prop_map(|(cluster, epoch, node_id, end)| Master {
        cluster,
        epoch,
        node_id,
        end,
    })
}

fn ack() -> impl Strategy<Value = Ack> {
    (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(chunks, taken, durable, applied)| Ack {
            chunks,
            taken,
            durable,
            applied,
        },
    )
}

fn hello() -> impl Strategy<Value = Message> {
    let who = (
        prop::option::of(uuid()),
        uuid(),
        uuid(),
        ".{0,20}",
        prop::option::of(".{0,20}"),
    );
    let what = (any::<[u64; 3]>(), end(), history(), any::<[bool; 2]>());
    (who, what).prop_map(|((cluster, node_id, boot_id, name, advertised), what)| {
        let (numbers, end, history, flags) = what;
        Message::Hello(Box::new(Hello {
            cluster,
            node_id,
            boot_id,
            name,
            advertised,
            promised: numbers[0],
            durable: numbers[1],
            applied: numbers[2],
            log: ReplicaLog {
                end,
                history,
                has_data: flags[0],
                wants_snapshot: flags[1],
            },
        }))
    })
}

fn reject() -> impl Strategy<Value = Reject> {
    prop_oneof![
        any::<u64>().prop_map(Reject::StaleEpoch),
        ".{0,20}".prop_map(Reject::WrongCluster),
        ".{0,20}".prop_map(Reject::Unauthenticated),
        any::<u32>().prop_map(Reject::Busy),
        any::<[u16; 3]>().prop_map(|[found_min, found_max, own]| Reject::Version {
            found_min,
            found_max,
            own
        }),
        prop::option::of(".{0,20}").prop_map(Reject::NotMaster),
        ".{0,20}".prop_map(Reject::Protocol),
    ]
}

fn batches() -> impl Strategy<Value = Message> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..4).prop_map(|payloads| {
        let mut first = 1;
        let mut chain = Chain::default();
        let batch = |payload: Vec<u8>| {
            let batch = Batch::encode(3, first, 2, 9, chain, &payload).unwrap();
            first += 2;
            chain = batch.chain_after();
            batch
        };
        Message::Batches(payloads.into_iter().map(batch).collect())
    })
}

fn message() -> impl Strategy<Value = Message> {
    let greet = (
        any::<[u16; 2]>(),
        any::<u64>(),
        any::<bool>(),
        any::<[u8; 32]>(),
    );
    let greet = greet.prop_map(|(versions, features, has_token, nonce)| {
        Message::Greet(Greet {
            min_version: versions[0],
            max_version: versions[1],
            features,
            has_token,
            nonce,
        })
    });
    let challenge = (any::<u16>(), any::<u64>(), any::<bool>(), any::<[u8; 32]>());
    let challenge = challenge.prop_map(|(version, features, has_token, nonce)| {
        Message::Challenge(Challenge {
            version,
            features,
            has_token,
            nonce,
        })
    });
    let begin = (master(), uuid(), end(), history()).prop_map(|(master, id, start, history)| {
        Message::SnapshotBegin(master, Box::new(SnapshotBegin { id, start, history }))
    });
    let chunk = (any::<[u32; 2]>(), prop::collection::vec(any::<u8>(), 0..60));
    let chunk = chunk.prop_map(|([index, crc], bytes)| {
        let bytes = Bytes::from(bytes);
        Message::SnapshotChunk(Chunk { index, crc, bytes })
    });
    let snapshot_end = (any::<[u32; 3]>(), any::<[u64; 2]>(), any::<u128>());
    let snapshot_end =
        snapshot_end.prop_map(|([chunks, crc, store_crc], [bytes, exact_from], digest)| {
            Message::SnapshotEnd(SnapshotEnd {
                chunks,
                bytes,
                crc,
                store_crc,
                exact_from,
                digest,
            })
        });
    let heartbeat = (
        any::<[u64; 3]>(),
        position(),
        prop::option::of((position(), any::<u128>())),
    );
    let heartbeat = heartbeat.prop_map(|([clock_ms, durable, covered], end, digest)| {
        Message::Heartbeat(Heartbeat {
            clock_ms,
            end,
            durable,
            covered,
            digest,
        })
    });
    prop_oneof![
        greet,
        challenge,
        any::<[u8; 32]>().prop_map(Message::Proof),
        hello(),
        (master(), any::<u64>()).prop_map(|(m, from)| Message::Continue(m, from)),
        (master(), end()).prop_map(|(m, to)| Message::Truncate(m, to)),
        begin,
        chunk,
        snapshot_end,
        reject().prop_map(Message::Reject),
        batches(),
        heartbeat,
        ack().prop_map(Message::Ack),
        (any::<[u64; 2]>(), ack()).prop_map(|([clock_ms, promised], ack)| {
            Message::Beat(Beat {
                clock_ms,
                promised,
                ack,
            })
        }),
    ]
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_was(message in message()) {
        prop_assert_eq!(through_the_wire(&message), message);
    }

    #[test]
    fn a_payload_that_is_cut_or_longer_is_an_error_and_never_a_panic(message in message()) {
        let (kind, whole) = payload(&message);
        for cut in 0..whole.len() {
            let cut = Message::decode(Frame { kind, payload: whole.slice(..cut) });
            // Only these end where the frame ends.
            let open_ended = matches!(kind, Kind::SnapshotChunk | Kind::Batches);
            prop_assert!(cut.is_err() || open_ended);
        }
        let longer = [whole, Bytes::from_static(b"!")].concat().into();
        let longer = Message::decode(Frame { kind, payload: longer });
        prop_assert!(longer.is_err() || kind == Kind::SnapshotChunk);
    }

    #[test]
    fn arbitrary_payloads_never_panic(kind in 0..14_usize, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::decode(Frame { kind: Kind::ALL[kind], payload: bytes.into() });
    }
}

#[test]
fn a_history_that_promises_more_than_is_there_is_refused_before_it_is_allocated() {
    let hello = Message::Truncate(
        Master {
            cluster: Uuid::nil(),
            epoch: 1,
            node_id: Uuid::nil(),
            end: Position::ZERO,
        },
        LogEnd::default(),
    );
    let (_, bytes) = payload(&hello);
    let mut buf = BytesMut::from(&bytes[..56]);
    buf.put_slice(&[0; 16 + 32]); // id and start
    buf.put_u32_le(99_999);
    let refused = Message::decode(Frame {
        kind: Kind::SnapshotBegin,
        payload: buf.freeze(),
    });
    assert!(
        matches!(
            refused,
            Err(MessageError::Short {
                field: "history",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn texts_that_are_too_long_lose_their_end_at_a_character() {
    let long = "ä".repeat(MAX_TEXT);
    let back = through_the_wire(&Message::Reject(Reject::Protocol(long)));
    assert_eq!(
        back,
        Message::Reject(Reject::Protocol("ä".repeat(MAX_TEXT / 2)))
    );
}

#[test]
fn batches_and_chunks_are_sent_from_where_they_lie() {
    let batch = Batch::encode(1, 1, 1, 0, Chain::default(), &[7; 1000]).unwrap();
    let mut parts: Vec<Bytes> = Vec::new();
    Message::Batches(vec![batch.clone()]).encode(&mut parts);
    assert!(parts.iter().any(|p| p.as_ptr() == batch.bytes().as_ptr()));
}
