//! tmp
#[derive(Debug, thiserror::Error)]
pub enum Error { #[error("{suite}{known}")] UnknownSuite { suite: String, known: String } }
pub(crate) fn disk_full_advice(_: &std::io::Error) -> &'static str { "" }
