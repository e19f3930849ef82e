//! Whether a batch can be applied, found out without applying it: a replica asks before it journals what its master sent,
//! so that nothing gets into its log that a restart could not apply either.

use vectorizer_replication::batch::Batch;
use vectorizer_replication::position::LogEnd;

use super::{ApplyError, Catalog, Op, Record, Store, absent};

impl Store {
    /// Whether [`Self::apply_ops`] would succeed now, and with which error not. Changes nothing.
    ///
    /// Certain only for the store's one applier.
    pub fn check_ops(&self, batch: &Batch, ops: &[Op<'_>]) -> Result<(), ApplyError> {
        follows(self.applied_end(), batch)?;
        let catalog = self.catalog.read();
        let mut changes = Changes::default();
        // Most batches are many vectors of one collection.
        let mut last = None;
        for (offset, op) in (batch.first_offset()..).zip(ops) {
            let record = match op {
                Op::Put {
                    incarnation,
                    vector,
                    ..
                } => {
                    let expected = match last {
                        Some((same, dimension)) if same == *incarnation => dimension,
                        Some(_) | None => changes.dimension(&catalog, offset, *incarnation)?,
                    };
                    last = Some((*incarnation, expected));
                    let found = vector.count();
                    if found != expected {
                        return Err(ApplyError::Dimension {
                            offset,
                            expected,
                            found,
                        });
                    }
                    continue;
                }
                Op::Other(record) => &**record,
            };
            match record {
                Record::Epoch { .. } => {}
                Record::CreateCollection { name, config, .. } => {
                    if changes.is_taken(&catalog, name) {
                        let name = name.clone();
                        return Err(ApplyError::NameTaken { offset, name });
                    }
                    changes.created.push((offset, name, config.dimension));
                }
                Record::DropCollection { incarnation } => {
                    changes.dimension(&catalog, offset, *incarnation)?;
                    changes.dropped.push(*incarnation);
                    last = None;
                }
                // A put is never among the others.
                Record::Put { incarnation, .. } | Record::Delete { incarnation, .. } => {
                    changes.dimension(&catalog, offset, *incarnation)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether the batch is the next one after what was applied.
pub(super) fn follows(applied: LogEnd, batch: &Batch) -> Result<(), ApplyError> {
    let expected = applied.position.offset + 1;
    let found = batch.first_offset();
    if found != expected {
        return Err(ApplyError::Gap { expected, found });
    }
    if batch.chain_before() != applied.chain {
        return Err(ApplyError::Chain {
            offset: expected,
            expected: applied.chain,
            found: batch.chain_before(),
        });
    }
    Ok(())
}

/// What the records before, in the same batch, make of the catalog.
#[derive(Default)]
struct Changes<'a> {
    /// Incarnation, name, dimension.
    created: Vec<(u64, &'a str, usize)>,
    dropped: Vec<u64>,
}

impl Changes<'_> {
    fn dimension(
        &self,
        catalog: &Catalog,
        offset: u64,
        incarnation: u64,
    ) -> Result<usize, ApplyError> {
        if self.dropped.contains(&incarnation) {
            return Err(absent(offset, incarnation));
        }
        let created = self.created.iter().find(|(i, _, _)| *i == incarnation);
        let there = || catalog.by_incarnation.get(&incarnation);
        created
            .map(|(_, _, dimension)| *dimension)
            .or_else(|| there().map(|collection| collection.config().dimension))
            .ok_or_else(|| absent(offset, incarnation))
    }

    fn is_taken(&self, catalog: &Catalog, name: &str) -> bool {
        let stands = |incarnation| !self.dropped.contains(&incarnation);
        let created = self
            .created
            .iter()
            .any(|(i, n, _)| *n == name && stands(*i));
        let there = catalog.by_name.get(name);
        created || there.is_some_and(|collection| stands(collection.incarnation()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::store::test_log::{Log, put};
    use crate::store::{CollectionConfig, Metric, Op, Record};

    /// Records over few collections, so that they meet each other; each third of the names and incarnations exists.
    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            ("[a-c]", 3..5usize).prop_map(|(name, dimension)| Record::CreateCollection {
                name,
                config: CollectionConfig::new(dimension, Metric::Cosine),
                created_ms: 1,
            }),
            (1..6u64).prop_map(|incarnation| Record::DropCollection { incarnation }),
            (1..6u64).prop_map(|incarnation| put(incarnation, "id", 1.0)),
            (1..6u64).prop_map(|incarnation| Record::Delete {
                incarnation,
                id: "id".to_owned(),
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn a_check_says_exactly_what_applying_would(records in prop::collection::vec(record(), 1..6)) {
            let mut log = Log::new();
            log.create("a", 3);
            log.create("b", 4);
            let store = log.store();
            let before = store.digests();
            let batch = log.write(1, records.clone());
            let payload = batch.payload();
            let ops = Op::decode_batch(&batch, &payload).unwrap();
            let checked = store.check_ops(&batch, &ops);
            prop_assert_eq!(store.digests(), before, "it changes nothing");
            prop_assert_eq!(checked, store.apply_ops(&batch, &ops));
        }
    }
}
