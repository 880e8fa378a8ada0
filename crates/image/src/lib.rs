//! x
pub mod apt;
pub mod deb;
pub mod deb822;
pub mod dependency;
pub mod fetch;
pub mod packages;
pub mod release;
pub mod resolve;
pub mod version;
mod hash;
mod error;
