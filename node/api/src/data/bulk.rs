//! `POST /collections/{name}/bulk`: many vectors in one binary body, for whoever loads millions of them.
//!
//! | bytes | field | meaning |
//! |---|---|---|
//! | 0..4 | magic | `VZB1` |
//! | 4..8 | count u32 | number of records, at least 1 |
//! | 8..12 | dimension u32 | numbers in each vector: the collection's |
//! | 12..16 | reserved u32 | 0 |
//! | 16.. | records | `count` of them, one after the other, to the end of the body |
//!
//! | a record's bytes | field | meaning |
//! |---|---|---|
//! | 0..2 | id length u16 | 1 to 1024 |
//! | 2..4 | reserved u16 | 0 |
//! | 4..8 | payload length u32 | 0 for no payload |
//! | then | id | UTF-8 |
//! | then | vector | `dimension` numbers, f32 each |
//! | then | payload | a JSON object in UTF-8 |
//!
//! Little endian, nothing is aligned or padded. [`BulkWriter`] writes it, [`BulkReader`] reads it.

use serde::{Deserialize, Serialize};

/// The content type of a bulk body.
pub const BULK_CONTENT_TYPE: &str = "application/vnd.vectorizer.bulk";

const MAGIC: [u8; 4] = *b"VZB1";
const HEADER_LEN: usize = 16;
const RECORD_HEAD_LEN: usize = 8;

/// Answer of `POST /collections/{name}/bulk`: all records were written.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BulkInserted {
    /// Number of records, inserted or replaced.
    pub inserted: usize,
}

/// Why bytes are no bulk body.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path}: {message}")]
pub struct BulkError {
    /// The place: `header`, `body`, or a field such as `records[3].id`.
    pub path: String,
    /// What is wrong there, and what would be right.
    pub message: String,
}

impl BulkError {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        BulkError {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// One record as it stands in the body.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BulkRecord<'a> {
    /// The vector's id.
    pub id: &'a str,
    /// Its numbers: f32, little endian, as many as the header says.
    pub vector: &'a [u8],
    /// Its payload; empty for none.
    pub payload: &'a [u8],
}

/// Reads a body record by record. Allocates nothing, whatever the lengths in the body say.
///
/// Ends after the first error; a body is good once all `count` records have come and then `None`.
#[derive(Clone, Debug)]
pub struct BulkReader<'a> {
    rest: &'a [u8],
    dimension: u32,
    count: u32,
    next: u32,
    failed: bool,
}

impl<'a> BulkReader<'a> {
    /// Reads the header.
    pub fn new(body: &'a [u8]) -> Result<Self, BulkError> {
        let Some((head, rest)) = body.split_at_checked(HEADER_LEN) else {
            let message = format!("{} bytes: a header has {HEADER_LEN}", body.len());
            return Err(BulkError::new("header", message));
        };
        if head[..4] != MAGIC {
            return Err(BulkError::new("header", "does not begin with `VZB1`"));
        }
        let (count, dimension) = (u32_at(head, 4), u32_at(head, 8));
        if count == 0 {
            return Err(BulkError::new("header", "count is 0: expected at least 1"));
        }
        if u32_at(head, 12) != 0 {
            return Err(BulkError::new("header", "the reserved bytes are not 0"));
        }
        Ok(BulkReader {
            rest,
            dimension,
            count,
            next: 0,
            failed: false,
        })
    }

    /// Numbers in each vector, as the header says.
    pub fn dimension(&self) -> u32 {
        self.dimension
    }

    /// Number of records, as the header says. The body may hold fewer or more, which reading it tells.
    pub fn records(&self) -> u32 {
        self.count
    }

    fn read(&mut self) -> Result<BulkRecord<'a>, BulkError> {
        let at = |field: &str| format!("records[{}]{field}", self.next);
        let short = |need: usize, have: usize| {
            let message = format!("the body ends inside it: {need} bytes needed, {have} there");
            BulkError::new(at(""), message)
        };
        let Some((head, rest)) = self.rest.split_at_checked(RECORD_HEAD_LEN) else {
            return Err(short(RECORD_HEAD_LEN, self.rest.len()));
        };
        let id_len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        if head[2..4] != [0, 0] {
            return Err(BulkError::new(at(""), "the reserved bytes are not 0"));
        }
        let payload_len = u32_at(head, 4) as usize;
        let vector_len = (self.dimension as usize).saturating_mul(4);
        let need = id_len
            .saturating_add(vector_len)
            .saturating_add(payload_len);
        let Some((own, rest)) = rest.split_at_checked(need) else {
            return Err(short(need, rest.len()));
        };
        let (id, own) = own.split_at(id_len);
        let (vector, payload) = own.split_at(vector_len);
        let Ok(id) = std::str::from_utf8(id) else {
            return Err(BulkError::new(at(".id"), "is not UTF-8"));
        };
        self.rest = rest;
        self.next += 1;
        Ok(BulkRecord {
            id,
            vector,
            payload,
        })
    }
}

impl<'a> Iterator for BulkReader<'a> {
    type Item = Result<BulkRecord<'a>, BulkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.next == self.count {
            if self.rest.is_empty() {
                return None;
            }
            self.failed = true;
            let message = format!(
                "{} bytes are left after {} records",
                self.rest.len(),
                self.count
            );
            return Some(Err(BulkError::new("body", message)));
        }
        let record = self.read();
        self.failed = record.is_err();
        Some(record)
    }
}

/// Writes a body.
#[derive(Clone, Debug)]
pub struct BulkWriter {
    body: Vec<u8>,
    dimension: usize,
    count: u32,
}

impl BulkWriter {
    /// A body for vectors of `dimension` numbers, as yet without records.
    pub fn new(dimension: usize) -> Self {
        let mut body = Vec::new();
        body.extend_from_slice(&MAGIC);
        body.extend_from_slice(&[0; HEADER_LEN - MAGIC.len()]);
        BulkWriter {
            body,
            dimension,
            count: 0,
        }
    }

    /// Adds a record. `payload` is a JSON object, or empty for none.
    /// Fails, adding nothing, where the lengths are not those that the layout allows.
    pub fn push(&mut self, id: &str, vector: &[f32], payload: &[u8]) -> Result<(), BulkError> {
        self.begin(id, vector.len(), payload.len())?;
        for number in vector {
            self.body.extend_from_slice(&number.to_le_bytes());
        }
        self.body.extend_from_slice(payload);
        Ok(())
    }

    /// The same for a vector that is encoded already: f32 each, little endian.
    pub fn push_bytes(&mut self, id: &str, vector: &[u8], payload: &[u8]) -> Result<(), BulkError> {
        // An uneven number of bytes is no vector of any length.
        let numbers = if vector.len().is_multiple_of(4) {
            vector.len() / 4
        } else {
            usize::MAX
        };
        self.begin(id, numbers, payload.len())?;
        self.body.extend_from_slice(vector);
        self.body.extend_from_slice(payload);
        Ok(())
    }

    /// A record up to its vector.
    fn begin(&mut self, id: &str, numbers: usize, payload: usize) -> Result<(), BulkError> {
        let wrong = |field: &str, message: String| {
            let path = format!("records[{}]{field}", self.count);
            Err(BulkError::new(path, message))
        };
        let (Ok(id_len), Ok(payload_len)) = (u16::try_from(id.len()), u32::try_from(payload))
        else {
            return wrong("", "the id or the payload is too long".to_owned());
        };
        if numbers != self.dimension {
            let message = format!("not a vector of {} numbers", self.dimension);
            return wrong(".vector", message);
        }
        self.body.extend_from_slice(&id_len.to_le_bytes());
        self.body.extend_from_slice(&[0; 2]);
        self.body.extend_from_slice(&payload_len.to_le_bytes());
        self.body.extend_from_slice(id.as_bytes());
        self.count += 1;
        Ok(())
    }

    /// Begins anew, in the same memory.
    pub fn clear(&mut self) {
        self.body.truncate(HEADER_LEN);
        self.count = 0;
    }

    /// Bytes so far, so that a body can be kept within the server's limit.
    pub fn size(&self) -> usize {
        self.body.len()
    }

    /// The body so far; one without records is refused by the server.
    pub fn body(&mut self) -> &[u8] {
        self.body[4..8].copy_from_slice(&self.count.to_le_bytes());
        self.body[8..12].copy_from_slice(&(self.dimension as u32).to_le_bytes());
        &self.body
    }

    /// The body.
    pub fn finish(mut self) -> Vec<u8> {
        self.body();
        self.body
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Vec<u8> {
        let mut writer = BulkWriter::new(2);
        writer.push("a", &[1.0, -2.5], b"").unwrap();
        writer.push("bé", &[0.0, 3.0], br#"{"x":1}"#).unwrap();
        writer.finish()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let body = body();
        let reader = BulkReader::new(&body).unwrap();
        assert_eq!((reader.dimension(), reader.records()), (2, 2));
        let records: Vec<_> = reader.map(Result::unwrap).collect();
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].id, records[0].payload), ("a", &b""[..]));
        assert_eq!(
            records[0].vector,
            [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat()
        );
        assert_eq!(
            (records[1].id, records[1].payload),
            ("bé", &br#"{"x":1}"#[..])
        );
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut writer = BulkWriter::new(1);
        writer.push("id", &[1.0], b"{}").unwrap();
        let expected = b"VZB1\x01\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\x02\0\0\0id\0\0\x80\x3f{}";
        assert_eq!(writer.finish(), expected);
    }

    #[test]
    fn a_body_that_is_cut_or_too_long_is_refused_with_the_place() {
        let whole = body();
        let fails = |bytes: &[u8]| match BulkReader::new(bytes) {
            Ok(reader) => reader.collect::<Result<Vec<_>, _>>().err(),
            Err(error) => Some(error),
        };
        assert_eq!(fails(&whole), None);
        for cut in 0..whole.len() {
            let error = fails(&whole[..cut]).unwrap_or_else(|| panic!("cut at {cut}"));
            assert!(["header", "records[0]", "records[1]"].contains(&error.path.as_str()));
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(fails(&longer).unwrap().path, "body");
        for (at, value, path) in [
            (0, b'X', "header"),
            (4, 0, "header"),
            (12, 1, "header"),
            (18, 1, "records[0]"),
            (24, 0xff, "records[0].id"),
            (11, 0xff, "records[0]"),
            (23, 0xff, "records[0]"),
        ] {
            let mut wrong = whole.clone();
            wrong[at] = value;
            assert_eq!(fails(&wrong).unwrap().path, path, "byte {at}");
        }
    }

    #[test]
    fn a_writer_takes_encoded_vectors_and_begins_anew_in_the_same_memory() {
        let mut writer = BulkWriter::new(2);
        writer.push("x", &[9.0, 9.0], b"").unwrap();
        writer.clear();
        let encoded = [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat();
        writer.push_bytes("a", &encoded, b"").unwrap();
        for wrong in [&encoded[..7], &encoded[..4]] {
            let refused = writer.push_bytes("b", wrong, b"").unwrap_err();
            assert_eq!(refused.path, "records[1].vector");
        }
        assert!(writer.push("b", &[1.0], b"").is_err());
        writer.push("bé", &[0.0, 3.0], br#"{"x":1}"#).unwrap();
        assert_eq!(writer.body(), body());
    }

    #[test]
    fn a_reader_ends_after_its_first_error() {
        let body = body();
        let mut reader = BulkReader::new(&body[..20]).unwrap();
        assert!(reader.next().unwrap().is_err());
        assert_eq!(reader.next(), None);
    }
}
