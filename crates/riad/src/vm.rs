//! `riad vm`: the process of a machine, which `riad start` starts.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::report::Failure;

pub(crate) fn vm(folder: PathBuf) -> Result<ExitCode, Failure> {
    let failed = || Failure::own("standard input is no socket, as `riad start` gives one");
    let birth = io::stdin().as_fd().try_clone_to_owned().map_err(failed())?;
    let birth = UnixStream::from(birth);
    birth.peer_addr().map_err(failed())?;
    // Standard input stays open as long as the process lives, and nothing may be told by it.
    let nothing =
        std::fs::File::open("/dev/null").map_err(Failure::own("cannot open /dev/null"))?;
    rustix::stdio::dup2_stdin(nothing)
        .map_err(|error| Failure::own("cannot let go of standard input")(error.into()))?;
    riad_host::process::live(folder, birth)?;
    Ok(ExitCode::SUCCESS)
}
