//! Writing a tree as an ext4 file system into a sparse file.
//!
//! The layout is mkext4's (a journal, checksums, hashed directories), which writes nothing twice and
//! gives the same bytes for the same tree.

use std::collections::HashMap;
use std::path::Path;

use mkext4::sink::FileSink;
use mkext4::{FsBuilder, InodeHandle, Meta, Options, SpecialKind};

use crate::error::Error;
use crate::rootfs::{Attributes, Content, Kind, ROOT, RootFs};

/// The label of root file systems.
pub const LABEL: &str = "riad-root";

/// The smallest size a root file system may have, in bytes.
pub const MIN_SIZE: u64 = 256 << 20;

/// Writes `rootfs` into the file `path`, as a file system of `size` bytes with that UUID.
/// `progress` is told the bytes of content written and to be written.
///
/// # Errors
///
/// The tree does not fit, or the file cannot be written.
pub fn write(
    path: &Path,
    rootfs: &RootFs,
    size: u64,
    uuid: [u8; 16],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), Error> {
    let failed = |source| Error::Ext4 { size_mib: size >> 20, source };
    let size = size & !4095;
    let epoch = i64::try_from(rootfs.mtime).unwrap_or(0);
    let mut options = Options::new(size, uuid, epoch);
    options.label = Some(LABEL.to_owned());
    // Root may not be kept from its own disk by blocks reserved for it.
    options.reserved_percent = 1;
    let mut builder = FsBuilder::new(options).map_err(failed)?;
    let files = declare(&mut builder, rootfs).map_err(failed)?;
    let total: u64 = files.iter().map(|(_, content)| content.len()).sum();

    let layout = builder.seal().map_err(failed)?;
    let mut sink = FileSink::create(path, layout.image_len()).map_err(Error::io("create", path))?;
    let mut write_all = || -> mkext4::Result<()> {
        let mut writer = layout.writer(&mut sink)?;
        let mut done = 0;
        for (handle, content) in &files {
            writer.fill(*handle, &mut rootfs.spool.reader(content))?;
            done += content.len();
            progress(done, total);
        }
        writer.finish()?;
        Ok(())
    };
    write_all().map_err(|error| match error {
        mkext4::Error::Io(source) => Error::Io { action: "write", path: path.to_owned(), source },
        error => failed(error),
    })?;
    sink.into_file().sync_all().map_err(Error::io("write", path))
}

/// Declares every node, and tells which files are to be filled, in the order to do it.
fn declare<'a>(
    builder: &mut FsBuilder,
    rootfs: &'a RootFs,
) -> mkext4::Result<Vec<(InodeHandle, &'a Content)>> {
    let mut files = Vec::new();
    // Nodes that have a name already: any further name is a hard link.
    let mut named: HashMap<usize, InodeHandle> = HashMap::new();
    builder.set_meta(mkext4::ROOT, meta(rootfs.tree.node(ROOT).attributes))?;
    let mut stack = vec![(ROOT, mkext4::ROOT)];
    while let Some((number, directory)) = stack.pop() {
        let Kind::Directory(entries) = &rootfs.tree.node(number).kind else { continue };
        for (name, &child) in entries {
            if let Some(&handle) = named.get(&child) {
                builder.hardlink(directory, name, handle)?;
                continue;
            }
            let node = rootfs.tree.node(child);
            let meta = meta(node.attributes);
            let handle = match &node.kind {
                Kind::Directory(_) => {
                    let handle = builder.mkdir(directory, name, meta)?;
                    stack.push((child, handle));
                    continue;
                }
                Kind::File(content) => {
                    let handle = builder.file(directory, name, meta, content.len())?;
                    if !content.is_empty() {
                        files.push((handle, content));
                    }
                    handle
                }
                Kind::Symlink(target) => builder.symlink(directory, name, target, meta)?,
                Kind::Device { block, major, minor } => {
                    let (major, minor) = (*major, *minor);
                    let kind = if *block {
                        SpecialKind::Block { major, minor }
                    } else {
                        SpecialKind::Char { major, minor }
                    };
                    builder.mknod(directory, name, meta, kind)?
                }
                Kind::Fifo => builder.mknod(directory, name, meta, SpecialKind::Fifo)?,
            };
            named.insert(child, handle);
        }
    }
    Ok(files)
}

fn meta(attributes: Attributes) -> Meta {
    let Attributes { mode, uid, gid, mtime } = attributes;
    Meta::new(mode, uid, gid, (i64::try_from(mtime).unwrap_or(0), 0))
}

#[cfg(test)]
#[path = "ext4_test.rs"]
mod tests;
