//! Frames: cutting a stream of bytes into them, and writing them.

use super::{MAX_PAYLOAD, ProtocolError, ToGuest, ToHost};

/// The length of a frame's header, in bytes: `u32` payload length, `u8` kind.
pub const HEADER_LEN: usize = 5;

/// One frame, its payload not yet looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: u8,
    /// The payload.
    pub payload: &'a [u8],
}

/// Cuts a stream into frames, wherever its reads happen to end.
///
/// Read from the stream into [`space`](Self::space), say how much with [`filled`](Self::filled),
/// then take frames with [`next_frame`](Self::next_frame) until it gives `None`.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes before this were handed out.
    start: usize,
    /// Bytes from here on are free.
    end: usize,
    /// The whole length of the frame at `start`, once its header was seen and allowed.
    wanted: usize,
    /// The longest payload of a kind; `None` where the kind is unknown.
    limit: fn(u8) -> Option<usize>,
}

impl Decoder {
    /// For what a guest sends: memory stays under 192 KiB whatever arrives.
    pub fn of_guest() -> Self {
        Self::new(ToHost::limit)
    }

    /// For what the host sends.
    pub fn of_host() -> Self {
        Self::new(ToGuest::limit)
    }

    fn new(limit: fn(u8) -> Option<usize>) -> Self {
        // Two frames: a read can take a whole one even where half of another is waiting.
        let buffer = vec![0; 2 * (HEADER_LEN + MAX_PAYLOAD)];
        Self { buffer, start: 0, end: 0, wanted: HEADER_LEN, limit }
    }

    /// Where to read the stream into; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start + self.wanted > self.buffer.len() || self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // Still too small: one frame longer than the buffer, which its kind allows, or a caller
        // that fills on without taking frames.
        let needed = self.wanted.max(self.end + 1);
        if self.buffer.len() < needed {
            self.buffer.resize(needed, 0);
        }
        &mut self.buffer[self.end..]
    }

    /// The first `count` bytes of [`space`](Self::space) were read. More than there were is taken
    /// as all of them.
    pub fn filled(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.buffer.len());
    }

    /// The next whole frame, or `None` until more is read.
    ///
    /// # Errors
    /// The header names an unknown kind or a forbidden length. The stream is of no more use.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, ProtocolError> {
        self.wanted = HEADER_LEN;
        let bytes = &self.buffer[self.start..self.end];
        let Some((&[a, b, c, d, kind], rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let limit = (self.limit)(kind).ok_or(ProtocolError::UnknownKind { kind })?;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > limit {
            return Err(ProtocolError::TooLong { kind, length, limit });
        }
        self.wanted = HEADER_LEN + length;
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        self.start += self.wanted;
        self.wanted = HEADER_LEN;
        Ok(Some(Frame { kind, payload }))
    }

    /// How many bytes the decoder holds memory for.
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }
}

/// Appends a frame whose payload `fill` writes; gives the payload's length.
pub(super) fn put_frame(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    fill(out);
    let length = out.len() - start - HEADER_LEN;
    out[start..start + 4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    length
}

/// Appends `data` in as many frames of `kind` as it takes; none if it is empty.
pub(super) fn put_data(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    for chunk in data.chunks(MAX_PAYLOAD) {
        put_frame(out, kind, |out| out.extend_from_slice(chunk));
    }
}
