//! Vectors to insert or replace, checked and encoded as log records beside the writer's thread, which then only has to
//! append them. What one entry of the log cannot hold is refused before memory is taken for it.

use std::collections::HashSet;

use bytes::BytesMut;
use vectorizer_api::data::MAX_BATCH_BYTES;
use vectorizer_api::error::{ApiError, ErrorCode};
use vectorizer_replication::batch::HEADER_LEN;

use super::EncodedPuts;
use crate::store::{Collection, Numbers, encode_put, put_len, validate_id};

/// Why a vector was not added.
#[derive(Clone, Debug, PartialEq)]
pub enum PutError {
    /// It is not allowed; others may be.
    Bad {
        /// `id` or `vector`.
        field: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// One entry of the log would not hold it beside the others.
    Full(ApiError),
}

/// Collects vectors for one collection.
pub struct Puts<'a> {
    collection: &'a Collection,
    records: BytesMut,
    count: u32,
    seen: HashSet<&'a str>,
}

impl<'a> Puts<'a> {
    /// None yet, with room for so many bytes of records, or for as many as there can be.
    pub fn new(collection: &'a Collection, bytes: usize) -> Self {
        let mut records = BytesMut::with_capacity(HEADER_LEN + bytes.min(MAX_BATCH_BYTES));
        records.resize(HEADER_LEN, 0);
        Puts {
            collection,
            records,
            count: 0,
            seen: HashSet::new(),
        }
    }

    /// Adds a vector. `payload` is a JSON object, which is not looked into here.
    pub fn push(
        &mut self,
        id: &'a str,
        vector: Numbers<'_>,
        payload: &[u8],
    ) -> Result<(), PutError> {
        let bad = |field, message| Err(PutError::Bad { field, message });
        if let Err(error) = validate_id(id) {
            return bad("id", error.to_string());
        }
        if self.seen.contains(id) {
            return bad("id", TWICE.to_owned());
        }
        if let Err(message) = check_vector(self.collection, vector) {
            return bad("vector", message);
        }
        let bytes = self.bytes() + put_len(id.len(), vector.count() * 4, payload.len());
        if bytes > MAX_BATCH_BYTES {
            return Err(PutError::Full(too_large(bytes)));
        }
        self.seen.insert(id);
        let incarnation = self.collection.incarnation();
        encode_put(&mut self.records, incarnation, id, vector, payload);
        self.count += 1;
        Ok(())
    }

    /// Bytes of the records so far.
    pub fn bytes(&self) -> usize {
        self.records.len() - HEADER_LEN
    }

    /// For the writer.
    pub fn finish(self) -> EncodedPuts {
        EncodedPuts {
            collection: self.collection.name().to_owned(),
            incarnation: self.collection.incarnation(),
            count: self.count,
            records: self.records,
        }
    }
}

/// The second item of the same id in one batch is refused: which of the two was meant is not for the node to guess.
pub(super) const TWICE: &str = "this id occurs earlier in the same batch; send each id once";

/// One entry of the log holds a batch, and this one takes, or would take, so many bytes.
pub fn too_large(bytes: usize) -> ApiError {
    ApiError::new(
        ErrorCode::PayloadTooLarge,
        format!(
            "the batch takes {bytes} bytes or more in the log; at most {MAX_BATCH_BYTES} fit: send it in parts"
        ),
    )
}

/// Whether a collection takes this vector, and why not.
pub(super) fn check_vector(collection: &Collection, vector: Numbers<'_>) -> Result<(), String> {
    let (dimension, count) = (collection.config().dimension, vector.count());
    if count != dimension {
        return Err(format!(
            "the vector has {count} numbers; the collection's dimension is {dimension}"
        ));
    }
    let at = match vector {
        Numbers::Floats(floats) => first_not_finite(floats, |number| *number),
        Numbers::Bytes(bytes) => {
            first_not_finite(bytes.as_chunks::<4>().0, |four| f32::from_le_bytes(*four))
        }
    };
    match at {
        Some(at) => Err(format!(
            "number {at} of the vector is not finite; only finite numbers are allowed"
        )),
        None => Ok(()),
    }
}

fn first_not_finite<T>(numbers: &[T], read: impl Fn(&T) -> f32) -> Option<usize> {
    // All of them first, without leaving the loop: in this form the compiler compares many at once.
    if numbers
        .iter()
        .fold(true, |all, n| all & read(n).is_finite())
    {
        return None;
    }
    numbers.iter().position(|n| !read(n).is_finite())
}
