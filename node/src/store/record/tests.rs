use proptest::prelude::*;

use super::*;

fn any_record() -> impl Strategy<Value = Record> {
    let id = "\\PC{1,40}";
    let metric = prop_oneof![
        Just(Metric::Cosine),
        Just(Metric::Euclidean),
        Just(Metric::DotProduct)
    ];
    prop_oneof![
        (any::<u64>(), any::<u128>()).prop_map(|(epoch, node)| Record::Epoch {
            epoch,
            node: Uuid::from_u128(node)
        }),
        (
            "[a-z]{1,20}",
            1..70usize,
            metric,
            any::<u64>(),
            proptest::option::of("\\PC{1,30}")
        )
            .prop_map(|(name, dimension, metric, created_ms, description)| {
                Record::CreateCollection {
                    name,
                    config: CollectionConfig {
                        dimension,
                        metric,
                        description,
                    },
                    created_ms,
                }
            }),
        any::<u64>().prop_map(|incarnation| Record::DropCollection { incarnation }),
        (
            any::<u64>(),
            id,
            proptest::collection::vec(-1e6f32..1e6, 0..40),
            proptest::collection::vec(any::<u8>(), 0..60)
        )
            .prop_map(|(incarnation, id, vector, payload)| Record::Put {
                incarnation,
                id,
                vector,
                payload: payload.into()
            }),
        (any::<u64>(), id).prop_map(|(incarnation, id)| Record::Delete { incarnation, id }),
    ]
}

fn encode(records: &[Record]) -> BytesMut {
    let mut out = BytesMut::new();
    for record in records {
        record.encode(&mut out);
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_come_back_as_they_were(records in proptest::collection::vec(any_record(), 0..8)) {
        prop_assert_eq!(Record::decode_all(&encode(&records)), Ok(records));
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_list(records in proptest::collection::vec(any_record(), 1..4)) {
        let bytes = encode(&records);
        let mut ends = vec![0];
        for n in 1..=records.len() {
            ends.push(encode(&records[..n]).len());
        }
        for cut in 0..bytes.len() {
            let decoded = Record::decode_all(&bytes[..cut]);
            match ends.iter().position(|end| *end == cut) {
                Some(n) => prop_assert_eq!(decoded, Ok(records[..n].to_vec())),
                None => prop_assert!(decoded.is_err(), "cut at {cut}"),
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Record::decode_all(&bytes);
    }
}

#[test]
fn a_length_from_a_peer_is_refused_before_it_is_allocated() {
    // A vector that claims 2^32 - 1 numbers inside a record of a few bytes.
    let mut body = BytesMut::new();
    body.put_u8(4);
    body.put_u64_le(1);
    put_text(&mut body, "id");
    body.put_u32_le(u32::MAX);
    let mut bytes = BytesMut::new();
    put_blob(&mut bytes, &body);
    let refused = Record::decode_all(&bytes).unwrap_err();
    assert!(refused.to_string().contains("vector"), "{refused}");
}

#[test]
fn a_batch_that_announces_another_number_of_records_is_refused() {
    let payload = encode(&[Record::DropCollection { incarnation: 1 }]);
    let batch = |count| Batch::encode(1, 1, count, 0, Default::default(), &payload).unwrap();
    assert!(Record::decode_batch(&batch(1)).is_ok());
    assert_eq!(
        Record::decode_batch(&batch(2)),
        Err(RecordError::Count {
            announced: 2,
            found: 1
        })
    );
}

#[test]
fn an_unknown_kind_is_refused() {
    let mut bytes = BytesMut::new();
    put_blob(&mut bytes, &[9]);
    let refused = Record::decode_all(&bytes).unwrap_err().to_string();
    assert!(refused.contains("`kind` cannot be 9"), "{refused}");
}
