//! The kernel that an imported image is started with, and the modules that lead it to its root.
//!
//! The initial RAM disk that a distribution made for it is not used: Riad's agent takes its place, with
//! modules from the same `/lib/modules`.

use std::fs;
use std::path::Path;

use super::KernelFrom;
use crate::error::Error;
use crate::kernel::{Files, KernelError, MODULES, Modules, Wanted};
use crate::store::{Image, KERNEL, MODULES as MODULE_DIRECTORY};
use crate::version::Version;

/// Bytes of the longest kernel.
const MOST_KERNEL: u64 = 256 << 20;

/// A kernel, and what is loaded into it.
pub(super) struct Kernel {
    pub(super) version: String,
    pub(super) image: Vec<u8>,
    /// Whether it is another image's, for want of one of its own.
    pub(super) is_borrowed: bool,
    /// The names of their files and what is in them, in the order to load them.
    pub(super) modules: Vec<(String, Vec<u8>)>,
}

impl Kernel {
    /// The kernel that was asked for. `root` is the root file system, `others` are those beside it: a
    /// `/boot` may be among them.
    pub(super) fn choose(
        from: &KernelFrom,
        path: &Path,
        root: &dyn Files,
        others: &[&dyn Files],
    ) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Import { path: path.to_owned(), reason };
        match from {
            KernelFrom::Image(image) => Self::of_image(image),
            KernelFrom::File(file) => {
                let image = fs::read(file).map_err(Error::io("read", file))?;
                let version = release(&image).map(str::to_owned).or_else(|| only_modules(root));
                let version = version.ok_or_else(|| {
                    refuse(format!(
                        "it cannot be told which of the modules in it belong to {}: give a bzImage, \
                         as distributions have it in /boot",
                        file.display()
                    ))
                })?;
                Self::with_modules(version, image, root, path)
            }
            KernelFrom::Own { otherwise } => match own(root, others) {
                Some((version, image)) => Self::with_modules(version, image, root, path),
                None => match otherwise {
                    Some(image) => Ok(Self { is_borrowed: true, ..Self::of_image(image)? }),
                    None => Err(refuse(
                        "there is no kernel in it (/boot/vmlinuz-VERSION, with \
                         /lib/modules/VERSION): give one with --kernel FILE, or `riad image build \
                         debian` first and take that image's with --kernel-of debian"
                            .to_owned(),
                    )),
                },
            },
        }
    }

    fn with_modules(
        version: String,
        image: Vec<u8>,
        root: &dyn Files,
        path: &Path,
    ) -> Result<Self, Error> {
        // What is not needed to reach the root, a guest loads by itself.
        let wanted = MODULES.map(|wanted| match wanted.name {
            "overlay" => Wanted { required: false, ..wanted },
            _ => wanted,
        });
        let modules = Modules::find(root, &version).closure(&wanted);
        let modules = modules.map_err(|error| match error {
            error @ KernelError::NoModule { .. } => Error::Import {
                path: path.to_owned(),
                reason: format!(
                    "{error}: give another kernel with --kernel FILE, whose modules are in its \
                     /lib/modules, or take an image's with --kernel-of debian"
                ),
            },
            error => error.into(),
        })?;
        let file = |number: usize, name: &str| format!("{number:02}-{name}.ko");
        let modules = modules.into_iter().enumerate();
        let modules = modules.map(|(number, module)| (file(number, &module.name), module.content));
        Ok(Self { version, image, is_borrowed: false, modules: modules.collect() })
    }

    fn of_image(image: &Image) -> Result<Self, Error> {
        let read = |path: &Path| fs::read(path).map_err(Error::io("read", path));
        let directory = image.directory().join(MODULE_DIRECTORY);
        let meta = image.meta();
        let modules =
            meta.modules.iter().map(|name| Ok((name.clone(), read(&directory.join(name))?)));
        Ok(Self {
            version: meta.kernel.clone(),
            image: read(&image.directory().join(KERNEL))?,
            is_borrowed: false,
            modules: modules.collect::<Result<_, Error>>()?,
        })
    }
}

/// The newest kernel in a root file system that has its modules there too.
fn own<'a>(root: &'a dyn Files, others: &[&'a dyn Files]) -> Option<(String, Vec<u8>)> {
    let mut found: Vec<(Version, String, &'a dyn Files, String)> = Vec::new();
    let mut add = |version: &str, files: &'a dyn Files, path: String| {
        found.push((Version::from(version), version.to_owned(), files, path));
    };
    for version in root.names("lib/modules") {
        add(&version, root, format!("boot/vmlinuz-{version}"));
        // As Fedora and Arch have it.
        add(&version, root, format!("lib/modules/{version}/vmlinuz"));
        for other in others {
            add(&version, *other, format!("vmlinuz-{version}"));
        }
    }
    found.sort_by(|a, b| b.0.cmp(&a.0));
    found.into_iter().find_map(|(_, version, files, path)| {
        files.read(&path, MOST_KERNEL).map(|image| (version, image))
    })
}

/// The version whose modules a root file system has, if there is one only.
fn only_modules(root: &dyn Files) -> Option<String> {
    match <[String; 1]>::try_from(root.names("lib/modules")) {
        Ok([version]) => Some(version),
        Err(_) => None,
    }
}

/// What a bzImage says of its version: the first word (Linux, `Documentation/arch/x86/boot.rst`,
/// `kernel_version`).
fn release(image: &[u8]) -> Option<&str> {
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return None;
    }
    let at = image.get(0x20e..0x210)?;
    let at = usize::from(u16::from_le_bytes([*at.first()?, *at.get(1)?])) + 0x200;
    let text = image.get(at..)?.split(|byte| *byte == 0 || *byte == b' ').next()?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-+~_".contains(byte);
    let is_version = (1..128).contains(&text.len()) && text.iter().all(is_plain);
    is_version.then(|| std::str::from_utf8(text).ok()).flatten()
}
