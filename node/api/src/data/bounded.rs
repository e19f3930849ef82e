//! What a request may hold, checked while it is read: before memory is taken for what is refused anyway.
//!
//! A batch has at most [`MAX_ITEMS`] items, a vector at most [`MAX_NUMBERS`] numbers, and all vectors of a batch take at
//! most [`MAX_BATCH_BYTES`], four bytes a number. JSON is larger than what it says, so that these bounds, and not the
//! size of a body, are what parsing it costs.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use super::{BatchQuery, EmbeddingItem, TextItem, UpdateItem, VectorItem};

/// Most items of one batch.
pub const MAX_ITEMS: usize = 100_000;
/// Most numbers of one vector, and so most dimensions of a collection.
pub const MAX_NUMBERS: usize = 65_536;
/// Most bytes that a batch takes in the log, where it is one entry.
pub const MAX_BATCH_BYTES: usize = 15 << 20;

/// Items whose room is reserved before they are seen.
const FORESEEN: usize = 1024;
/// How the message begins of what is refused for its size, and would be right in parts.
const TOO_MUCH: &str = "too much at once: ";

/// Whether reading a request ended at one of these bounds; the message is that of the error.
pub fn is_too_much(message: &str) -> bool {
    message.starts_with(TOO_MUCH)
}

/// Something that a request may say and that is not looked into: present, and that is all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "serde_json::Value"))]
pub struct Present;

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(from).map(|_| Present)
    }
}

impl Serialize for Present {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bool(true)
    }
}

/// How much of [`MAX_BATCH_BYTES`] an item takes for certain.
pub(super) trait Weighed {
    fn bytes(&self) -> usize;
}

impl Weighed for String {
    fn bytes(&self) -> usize {
        self.len()
    }
}

impl<P> Weighed for TextItem<P> {
    fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl<P> Weighed for EmbeddingItem<P> {
    fn bytes(&self) -> usize {
        self.embedding.len() * 4
    }
}

impl<P> Weighed for VectorItem<P> {
    fn bytes(&self) -> usize {
        self.data.len() * 4
    }
}

impl<P> Weighed for UpdateItem<P> {
    fn bytes(&self) -> usize {
        self.vector.as_ref().map_or(0, |vector| vector.len() * 4)
    }
}

impl<F> Weighed for BatchQuery<F> {
    fn bytes(&self) -> usize {
        self.vector.as_ref().map_or(0, |vector| vector.len() * 4)
    }
}

/// The items of a batch, for `#[serde(deserialize_with)]`.
pub(super) fn items<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Weighed,
{
    from.deserialize_seq(Items(PhantomData))
}

struct Items<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Weighed> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::with_capacity(from.size_hint().unwrap_or(0).min(FORESEEN));
        let mut bytes = 0usize;
        while let Some(item) = from.next_element::<T>()? {
            bytes = bytes.saturating_add(item.bytes());
            if items.len() == MAX_ITEMS {
                return Err(A::Error::custom(format_args!(
                    "{TOO_MUCH}a batch has at most {MAX_ITEMS} items: send it in parts"
                )));
            }
            if bytes > MAX_BATCH_BYTES {
                return Err(A::Error::custom(format_args!(
                    "{TOO_MUCH}the batch takes more than {MAX_BATCH_BYTES} bytes in the log: send it in parts"
                )));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// Indices of a sparse vector, for `#[serde(deserialize_with)]`: as many as a vector may have numbers.
pub(super) fn indices<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    struct Indices;

    impl<'de> Visitor<'de> for Indices {
        type Value = Vec<u32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of whole numbers")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Vec<u32>, A::Error> {
            let mut indices = Vec::new();
            while let Some(index) = from.next_element::<u32>()? {
                if indices.len() == MAX_NUMBERS {
                    return Err(too_many_numbers());
                }
                indices.push(index);
            }
            Ok(indices)
        }
    }

    from.deserialize_seq(Indices)
}

pub(super) fn too_many_numbers<E: Error>() -> E {
    E::custom(format_args!("more than {MAX_NUMBERS} numbers"))
}

#[cfg(test)]
mod tests {
    use super::super::{BatchDelete, InsertVectors, Search};
    use super::*;

    #[test]
    fn a_batch_ends_at_its_bounds_and_says_which() {
        let ids = |count: usize| {
            format!(
                r#"{{"collection":"c","ids":[{}""]}}"#,
                r#""","#.repeat(count - 1)
            )
        };
        assert_eq!(
            serde_json::from_str::<BatchDelete>(&ids(MAX_ITEMS))
                .unwrap()
                .ids
                .len(),
            MAX_ITEMS
        );
        let error = serde_json::from_str::<BatchDelete>(&ids(MAX_ITEMS + 1))
            .unwrap_err()
            .to_string();
        assert!(
            is_too_much(&error) && error.contains("100000 items"),
            "{error}"
        );

        let numbers = vec!["0"; 60_000].join(",");
        let vectors = vec![format!(r#"{{"embedding":[{numbers}]}}"#); 70].join(",");
        let body = format!(r#"{{"collection":"c","vectors":[{vectors}]}}"#);
        let error = serde_json::from_str::<InsertVectors>(&body)
            .unwrap_err()
            .to_string();
        assert!(
            is_too_much(&error) && error.contains("15728640 bytes"),
            "{error}"
        );
    }

    #[test]
    fn a_vector_ends_at_the_largest_dimension() {
        let with = |count: usize| format!(r#"{{"vector":[{}0]}}"#, "0,".repeat(count - 1));
        let read: Search = serde_json::from_str(&with(MAX_NUMBERS)).unwrap();
        assert_eq!(read.vector.unwrap().len(), MAX_NUMBERS);
        let error = serde_json::from_str::<Search>(&with(MAX_NUMBERS + 1)).unwrap_err();
        assert!(
            error.to_string().contains("more than 65536 numbers"),
            "{error}"
        );
    }
}
