//! `riad make-image`: the process in which an image is made, which riad starts.

use std::io;
use std::process::ExitCode;

use crate::report::Failure;

pub(crate) fn make_image(parent: u32) -> Result<ExitCode, Failure> {
    riad_host::images::make_for(parent, io::stdin().lock(), io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}
