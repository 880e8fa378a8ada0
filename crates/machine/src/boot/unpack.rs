//! Decompression, of kernels inside bzImages and of whole kernel files.
//!
//! The formats are the ones the Linux build offers (`CONFIG_KERNEL_*`) but for LZO, which no
//! distribution uses: a bzImage packed with it decompresses itself in the guest.

use std::fmt;
use std::io::{self, Read};

use super::BootError;

/// The largest decompressed kernel accepted, bytes.
pub const MAX_UNPACKED: usize = 512 << 20;

/// Memory a decompressor may use for its window, bytes.
const MAX_WINDOW: u64 = 256 << 20;

/// First word of an LZ4 "legacy" frame, the only LZ4 format Linux uses.
const LZ4_LEGACY_MAGIC: u32 = 0x184c_2102;
/// Decompressed size of all blocks of a legacy frame but the last, bytes.
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

/// A compression format, known by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// XZ, with the x86 branch filter.
    Xz,
    /// LZMA "alone".
    Lzma,
    /// Zstandard, RFC 8878.
    Zstd,
    /// LZ4 legacy frame.
    Lz4,
    /// bzip2.
    Bzip2,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Bzip2 => "bzip2",
        })
    }
}

impl Compression {
    /// Recognises a format.
    #[must_use]
    pub fn detect(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x5d, 0, 0, ..] => Self::Lzma,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            _ => return None,
        })
    }

    /// Decompresses `bytes`, at most [`MAX_UNPACKED`] of them. What follows the compressed stream
    /// is ignored.
    ///
    /// # Errors
    /// When the data is damaged, or larger than the limit.
    pub fn unpack(self, bytes: &[u8]) -> Result<Vec<u8>, BootError> {
        let fail = |source| BootError::Unpack { what: self, source };
        match self {
            Self::Gzip => read_all(flate2::bufread::GzDecoder::new(bytes)),
            Self::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(MAX_WINDOW, 0);
                read_all(lzma_reader(bytes, stream).map_err(fail)?)
            }
            Self::Lzma => {
                let stream = liblzma::stream::Stream::new_lzma_decoder(MAX_WINDOW);
                read_all(lzma_reader(bytes, stream).map_err(fail)?)
            }
            Self::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(fail)?;
                read_all(decoder.single_frame())
            }
            Self::Lz4 => unpack_lz4(bytes),
            Self::Bzip2 => read_all(bzip2::bufread::BzDecoder::new(bytes)),
        }
        .map_err(fail)?
        .ok_or(BootError::TooLarge)
    }
}

fn lzma_reader(
    bytes: &[u8],
    stream: Result<liblzma::stream::Stream, liblzma::stream::Error>,
) -> io::Result<liblzma::bufread::XzDecoder<&[u8]>> {
    Ok(liblzma::bufread::XzDecoder::new_stream(bytes, stream?))
}

/// Reads to the end; `None` when that is further than [`MAX_UNPACKED`].
fn read_all(reader: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    reader.take(MAX_UNPACKED as u64 + 1).read_to_end(&mut out)?;
    Ok((out.len() <= MAX_UNPACKED).then_some(out))
}

/// Decompresses a legacy LZ4 frame (LZ4 frame format 1.6.4, "legacy frame"): a magic word, then
/// blocks, each with its compressed size before it. The end is the end of the data, or anything
/// that cannot be a block.
fn unpack_lz4(bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut out = Vec::new();
    let mut rest = bytes.get(4..).unwrap_or_default();
    while let Some((size, tail)) = rest.split_first_chunk::<4>() {
        let size = u32::from_le_bytes(*size);
        rest = tail;
        if size == LZ4_LEGACY_MAGIC {
            continue; // frames may be concatenated
        }
        if size == 0 {
            break;
        }
        let Some((block, tail)) = rest.split_at_checked(size as usize) else {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an lz4 block is cut short"));
        };
        rest = tail;
        let start = out.len();
        if start + LZ4_LEGACY_BLOCK > MAX_UNPACKED {
            return Ok(None);
        }
        out.resize(start + LZ4_LEGACY_BLOCK, 0);
        let len = lz4_flex::block::decompress_into(block, &mut out[start..])
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        out.truncate(start + len);
        if len < LZ4_LEGACY_BLOCK {
            break; // only the last block is short
        }
    }
    Ok(Some(out))
}

#[cfg(test)]
#[path = "unpack_test.rs"]
mod tests;
