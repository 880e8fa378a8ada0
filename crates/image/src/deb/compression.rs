//! Decompression with bounds: on memory within the decompressors, on bytes that come out of them.

use std::io::{self, BufRead, Read};

/// Memory an xz or zstd stream may ask for. xz's strongest preset needs 65 MiB.
const MEMORY: u64 = 256 << 20;

/// The content of a compressed stream, by file name extension (`.xz`, `.gz`, `.zst`, or nothing for
/// a plain one); `None` for other extensions.
///
/// # Errors
///
/// A decompressor cannot start.
pub fn decompress<'a>(
    raw: impl BufRead + 'a,
    extension: &str,
) -> io::Result<Option<Box<dyn Read + 'a>>> {
    Ok(Some(match extension {
        "" => Box::new(raw),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
        ".xz" => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(raw, stream))
        }
        ".zst" => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
            decoder.window_log_max(MEMORY.ilog2())?;
            Box::new(decoder)
        }
        _ => return Ok(None),
    }))
}

/// A reader that fails, rather than ends, when more than a limit comes out of it: a decompression
/// bomb is an error and not a short file.
#[derive(Debug)]
pub struct Bounded<R> {
    inner: R,
    what: &'static str,
    limit: u64,
    left: u64,
}

impl<R> Bounded<R> {
    /// Allows `limit` bytes of `what`.
    pub fn new(inner: R, what: &'static str, limit: u64) -> Self {
        Self { inner, what, limit, left: limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("its {} is larger than {} bytes", self.what, self.limit),
            )
        })?;
        Ok(n)
    }
}
