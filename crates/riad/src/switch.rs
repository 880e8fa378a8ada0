//! `riad switch`: the process between the machines on a network, which `riad start` starts.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use crate::report::Failure;

pub(crate) fn switch(directory: &Path) -> Result<ExitCode, Failure> {
    let failed = || Failure::own("standard input is no socket that listens, as `riad start` gives");
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(failed())?;
    let listens = rustix::net::sockopt::socket_acceptconn(&listener);
    if !listens.map_err(|error| failed()(error.into()))? {
        return Err(failed()(io::ErrorKind::InvalidInput.into()));
    }
    let nothing =
        std::fs::File::open("/dev/null").map_err(Failure::own("cannot open /dev/null"))?;
    rustix::stdio::dup2_stdin(nothing)
        .map_err(|error| Failure::own("cannot let go of standard input")(error.into()))?;
    riad_host::process::serve_switch(directory, listener)?;
    Ok(ExitCode::SUCCESS)
}
