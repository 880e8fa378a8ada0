//! Small valid files, made in code: what mutation begins with.

pub mod archive;
pub mod code;
pub mod kernels;
pub mod openpgp;
pub mod user;
