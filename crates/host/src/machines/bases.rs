//! The images that machines stand on.
//!
//! Images are kept in the user's cache, and a cache may be emptied at any time; machines must not
//! lose the ground under them. So an image that a machine is made from gets a second name beside the
//! machines: hard links, which take no time and no space; or copies, where the cache is on another
//! file system. It is removed with the last machine that stands on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use riad_image::Image;

use super::MachineError;
use super::config::new_id;
use super::files::{make_directory, sync_directory};

fn directory(root: &Path) -> PathBuf {
    root.join(".images")
}

/// What an image is called here: the name of its directory in the cache, which is its digest.
pub(super) fn id(image: &Image) -> String {
    image.directory().file_name().map_or_else(String::new, |id| id.to_string_lossy().into_owned())
}

/// The image of that id.
pub(super) fn open(root: &Path, id: &str) -> Result<Image, MachineError> {
    Image::open(&directory(root).join(id)).map_err(MachineError::Base)
}

/// Gives an image a second name, if it has none.
pub(super) fn adopt(root: &Path, image: &Image) -> Result<Image, MachineError> {
    let id = id(image);
    if let Ok(image) = open(root, &id) {
        return Ok(image);
    }
    let directory = directory(root);
    make_directory(&directory)?;
    let draft = directory.join(format!(".new-{}", new_id()));
    let made = link_tree(image.directory(), &draft).and_then(|()| {
        let place = directory.join(&id);
        match fs::rename(&draft, &place) {
            Ok(()) => sync_directory(&directory),
            // Somebody was faster.
            Err(_) if open(root, &id).is_ok() => Ok(()),
            Err(error) => Err(MachineError::io("create", &place)(error)),
        }
    });
    // Not there any more if all went well.
    let _ = fs::remove_dir_all(&draft);
    made?;
    open(root, &id)
}

/// Links, or copies, a directory with directories.
fn link_tree(from: &Path, to: &Path) -> Result<(), MachineError> {
    make_directory(to)?;
    for entry in fs::read_dir(from).map_err(MachineError::io("read", from))? {
        let entry = entry.map_err(MachineError::io("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            link_tree(&source, &target)?;
            continue;
        }
        match fs::hard_link(&source, &target) {
            Ok(()) => {}
            // Another file system, one without links, or somebody else's file.
            Err(error) if error.kind() != io::ErrorKind::StorageFull => {
                riad_disk::copy_sparse(&source, &target)
                    .map_err(MachineError::io("copy", &source))?;
            }
            Err(error) => return Err(MachineError::io("link", &source)(error)),
        }
    }
    sync_directory(to)
}

/// Removes the images that are not in use.
pub(super) fn keep_only(root: &Path, used: &[String]) -> Result<(), MachineError> {
    let directory = directory(root);
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !used.contains(&name) {
            fs::remove_dir_all(entry.path()).map_err(MachineError::io("remove", &entry.path()))?;
        }
    }
    Ok(())
}
