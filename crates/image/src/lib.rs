//! Debian images, built from Debian's own packages.
//!
//! An image is a root file system, a kernel and the kernel modules an agent needs to get from one to
//! the other. [`build`] makes one on any Linux host, without root, debootstrap or loop devices:
//!
//! 1. [`apt`]: which archive, from the host's package configuration or as told;
//! 2. [`release`] and [`packages`]: what the archive has, vouched for by Debian's keys;
//! 3. [`resolve`]: which packages;
//! 4. [`fetch`]: their files, into a cache by hash;
//! 5. [`deb`], [`rootfs`], [`kernel`]: unpacked into a tree in memory, as dpkg would, running nothing;
//! 6. [`ext4`], [`initramfs`]: written as a disk and a boot archive;
//! 7. [`Configure`]: the packages' own scripts run, inside a virtual machine that the caller brings;
//! 8. [`store`]: the result, content-addressed, put into place in one step.
//!
//! # Walls
//!
//! * Nothing of a package is ever run on the host, and nothing is written to the host's file system
//!   under a name that a package chose.
//! * Everything downloaded is hostile until a hash that a signature vouches for says otherwise; the
//!   parsers do not rely on it even then. [`packages::parse_packages`], [`release::Release::parse`],
//!   [`release::clear_text`], [`deb::read_members`], [`dependency::parse`]
//!   [`kernel::module_info`] and [`find_root`] are where to point a fuzzer.
//! * An image in the store is whole. A build that was interrupted, at any byte, leaves none.
//! * No architecture is assumed: it is a parameter, under the name Debian has for it.
//!
//! [`import()`] makes an image of a disk or an archive that is there already.
//!
//! Begin reading at [`build`], in `build.rs`.

pub mod apt;
mod build;
pub mod deb;
pub mod deb822;
pub mod dependency;
mod error;
pub mod ext4;
pub mod fetch;
mod hash;
mod import;
mod indexes;
pub mod initramfs;
pub mod kernel;
pub mod packages;
mod progress;
mod reference;
pub mod release;
pub mod resolve;
pub mod rootfs;
pub mod store;
pub mod version;

pub use build::{BuildOptions, Configure, DEFAULT_SIZE, build};
pub use error::Error;
pub use import::{DiskBytes, ImportOptions, KernelFrom, Place, find as find_root, import};
pub use progress::{Progress, Stage};
pub use reference::ImageRef;
pub use store::{Image, ImageMeta, Listed, Pruned, Store};
