//! Reading and writing the fields that log records and snapshot entries are made of.
//!
//! Little endian. Text has a u16 length before it, payloads a u32 length, vectors a u32 count of f32. A reader never
//! allocates before it has seen that the bytes are there, so that a length from a peer cannot make it do so.

use bytes::{BufMut, Bytes, BytesMut};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end inside a field.
    #[error("bytes end inside `{field}`: {need} bytes needed, {have} there")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Bytes that the field needs.
        need: usize,
        /// Bytes that are left.
        have: usize,
    },
    /// Bytes are left over after the last field.
    #[error("{0} bytes left over after the last field")]
    Trailing(usize),
    /// A field has a value that it cannot have.
    #[error("`{field}` cannot be {value}")]
    Value {
        /// The field.
        field: &'static str,
        /// What was found.
        value: u64,
    },
    /// A text is not what it may be.
    #[error("`{0}` is not allowed")]
    NotAllowed(&'static str),
    /// A text is not UTF-8.
    #[error("`{0}` is not UTF-8")]
    Utf8(&'static str),
}

/// Takes fields off the front of bytes.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Fields { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], CodecError> {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(CodecError::Truncated {
                field,
                need: len,
                have: self.rest.len(),
            }),
        }
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], CodecError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(field, N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A text after its u16 length.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, CodecError> {
        let len = self.u16(field)?;
        let bytes = self.take(field, usize::from(len))?;
        std::str::from_utf8(bytes).map_err(|_| CodecError::Utf8(field))
    }

    /// Bytes after their u32 length.
    pub(crate) fn blob(&mut self, field: &'static str) -> Result<&'a [u8], CodecError> {
        let len = self.u32(field)?;
        self.take(field, len as usize)
    }

    /// A vector after its u32 count.
    pub(crate) fn vector(&mut self, field: &'static str) -> Result<Vec<f32>, CodecError> {
        let mut out = Vec::new();
        floats(self.vector_bytes(field)?, &mut out);
        Ok(out)
    }

    /// A vector after its u32 count, as it stands: four bytes a number.
    pub(crate) fn vector_bytes(&mut self, field: &'static str) -> Result<&'a [u8], CodecError> {
        let count = self.u32(field)?;
        let len = (count as usize).checked_mul(4).ok_or(CodecError::Value {
            field,
            value: u64::from(count),
        })?;
        self.take(field, len)
    }

    /// Everything has been taken.
    pub(crate) fn end(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(CodecError::Trailing(left)),
        }
    }
}

/// Writes a text with its u16 length. Texts are checked to fit long before they come here; a longer one is cut, so
/// that what is written can always be read.
pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    let mut len = text.len().min(usize::from(u16::MAX));
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.put_u16_le(len as u16);
    out.put_slice(&text.as_bytes()[..len]);
}

/// Writes bytes with their u32 length.
pub(crate) fn put_blob(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.put_slice(bytes);
}

/// Writes a vector with its u32 count.
pub(crate) fn put_vector(out: &mut BytesMut, vector: &[f32]) {
    out.put_u32_le(vector.len() as u32);
    let start = out.len();
    out.put_bytes(0, vector.len() * 4);
    // In this form the compiler makes it one copy.
    for (to, value) in out[start..].chunks_exact_mut(4).zip(vector) {
        to.copy_from_slice(&value.to_le_bytes());
    }
}

/// Appends the numbers that `bytes` are, four bytes each.
pub(crate) fn floats(bytes: &[u8], out: &mut Vec<f32>) {
    let (numbers, _) = bytes.as_chunks::<4>();
    out.extend(numbers.iter().map(|b| f32::from_le_bytes(*b)));
}

/// Bytes of their own, so that keeping them does not keep the batch that they came in.
pub(crate) fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
