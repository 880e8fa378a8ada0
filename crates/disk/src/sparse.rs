//! Copies of files that are mostly holes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::sys;

/// Bytes moved at a time.
const PIECE: usize = 1 << 20;

/// Copies a file to one that must not exist, durably, readable by its owner only. Where the host's
/// file system can share blocks the copy is made in an instant and takes no space; elsewhere holes
/// stay holes.
///
/// # Errors
/// The host's reason. What was begun is removed.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let copied = copy_contents(&source, &target).and_then(|()| target.sync_all());
    if copied.is_err() {
        // What is left of it would be in the way of the next attempt.
        let _ = std::fs::remove_file(to);
    }
    copied
}

fn copy_contents(source: &File, target: &File) -> io::Result<()> {
    if sys::share_blocks(source, target) {
        return Ok(());
    }
    let length = source.metadata()?.len();
    target.set_len(length)?;
    let mut buf = vec![0; PIECE];
    let mut at = 0;
    while let Some(data) = sys::next_data(source, at)?.filter(|data| *data < length) {
        let end = sys::next_hole(source, data)?.min(length);
        at = data;
        while at < end {
            let len = usize::try_from(end - at).map_or(PIECE, |left| left.min(PIECE));
            let piece = buf.get_mut(..len).unwrap_or_default();
            source.read_exact_at(piece, at)?;
            target.write_all_at(piece, at)?;
            at += len as u64;
        }
    }
    Ok(())
}
