//! Commands that are run in machines, whatever kind of machine.

use std::ffi::OsString;

use riad_agent::client::{ExitStatus, SessionIo};
use riad_agent::protocol::{ExecRequest, TtyRequest};

use crate::Error;

/// A command to run in a machine.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// The command and its arguments; a login shell when empty.
    pub argv: Vec<OsString>,
    /// Variables for it.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs, in the guest.
    pub workdir: Option<OsString>,
    /// Who runs it: `name`, `uid`, `name:group` or `uid:gid`.
    pub user: Option<String>,
    /// A terminal for it; pipes otherwise.
    pub tty: Option<TtyRequest>,
}

/// Shells to log in with, the best first.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

impl Command {
    /// A command with nothing else asked for.
    pub fn new<S: Into<OsString>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Runs it in sessions that `session` opens: one, or where a login shell is wanted as many as
    /// there are shells to be tried.
    pub(crate) fn run(
        &self,
        io: SessionIo<'_>,
        mut session: impl FnMut(&ExecRequest, SessionIo<'_>) -> Result<ExitStatus, Error>,
    ) -> Result<ExitStatus, Error> {
        let Self { argv, env, workdir, user, tty } = self;
        let mut request = ExecRequest {
            argv: argv.clone(),
            env: env.clone(),
            cwd: workdir.clone(),
            user: user.clone(),
            tty: tty.clone(),
            stdin: true,
        };
        let SessionIo { stdin, stdout, stderr } = io;
        let mut session =
            |request: &ExecRequest| session(request, SessionIo { stdin, stdout, stderr });
        if !argv.is_empty() {
            return session(&request);
        }
        let mut result = Err(Error::Aborted);
        for shell in SHELLS {
            request.argv = vec![shell.into(), "-l".into()];
            result = session(&request);
            let is_missing =
                matches!(&result, Err(error @ Error::NotStarted(_)) if error.exit_code() == 127);
            if !is_missing {
                break;
            }
        }
        result
    }
}
