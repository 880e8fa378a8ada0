//! Fields inside a payload: little-endian integers, and byte strings behind a `u32` length.

use super::{MAX_TEXT, ProtocolError};

/// Reads the fields of one payload, in order.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn new(kind: u8, payload: &'a [u8]) -> Self {
        Self { kind, rest: payload }
    }

    pub(super) fn malformed(&self, what: &'static str) -> ProtocolError {
        ProtocolError::Malformed { kind: self.kind, what }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (head, rest) =
            self.rest.split_first_chunk::<N>().ok_or_else(|| self.malformed("it ends early"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ProtocolError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn bool(&mut self) -> Result<bool, ProtocolError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed("a truth value is neither 0 nor 1")),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, ProtocolError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ProtocolError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, ProtocolError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ProtocolError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A byte string behind its length.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], ProtocolError> {
        let length = self.u32()?;
        let (head, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| self.rest.split_at_checked(length))
            .ok_or_else(|| self.malformed("a string ends early"))?;
        self.rest = rest;
        Ok(head)
    }

    /// A count of items that follow, each at least `least` bytes long: never more than could be
    /// there, so that the caller may reserve room for it.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, ProtocolError> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if count > self.rest.len() / least.max(1) {
            return Err(self.malformed("it counts more items than it holds"));
        }
        Ok(count)
    }

    /// A text that a person will read: bounded, valid UTF-8, and without control characters, which
    /// could otherwise drive the terminal it is shown on.
    pub(super) fn text(&mut self) -> Result<String, ProtocolError> {
        let bytes = self.bytes()?;
        if bytes.len() > MAX_TEXT {
            return Err(self.malformed("a text is too long"));
        }
        Ok(String::from_utf8_lossy(bytes).replace(char::is_control, " "))
    }

    /// The payload must be used up. Not called where later versions may append fields.
    pub(super) fn finish(self) -> Result<(), ProtocolError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed("it goes on after its end")) }
    }
}

/// Appends `bytes` behind their length.
///
/// A string of 4 GiB cannot be said; it is longer than any frame, so the length check of the frame
/// refuses it whatever is written here.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends `text` behind its length, cut to [`MAX_TEXT`].
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().as_bytes());
}
