//! `riad sweep`: what becomes of a riad that was interrupted while it built an image.

use std::process::ExitCode;

pub(crate) fn sweep(status: u8) -> ExitCode {
    if let Err(error) = riad_host::images::sweep() {
        // The next riad tries again.
        tracing::warn!(%error, "an interrupted build could not be cleaned up");
    }
    ExitCode::from(status)
}
