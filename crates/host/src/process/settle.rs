//! What is left to do once a machine's agent answers: the file system gets the room that the disk
//! has, and the init system is asked for its word. Nobody has to wait for it.

use std::io::{Read, pipe};
use std::os::fd::AsFd;
use std::thread;
use std::time::Instant;

use riad_agent::client::{ExitStatus, SessionIo, run_session};
use riad_agent::protocol::{ExecRequest, PORT};

use super::shared::{Shared, Ways};
use crate::machines::{Boot, Phase};
use crate::{Error, printable};

/// Grows the root file system to the size of its disk, where the image has the tool for it.
const GROW: &str = "command -v resize2fs >/dev/null && exec resize2fs /dev/vda";

/// The init system's word, once it has brought everything up (systemctl(1)). `--wait` would need
/// D-Bus in the guest.
const SYSTEM: &str = "\
case $(readlink -f /sbin/init) in
*/systemd)
    word=
    while case $word in ''|offline|initializing|starting) true;; *) false;; esac
    do sleep 0.2; word=$(systemctl is-system-running 2>/dev/null); done
    echo $word;;
'') echo none;;
*) echo unknown;;
esac";

/// Bytes of an answer that are read.
const ANSWER: u64 = 4096;

/// Begins, in a thread that ends with the machine at the latest.
pub(super) fn begin(shared: &Shared, grown: bool, boot: Boot) -> Result<(), Error> {
    let shared = shared.clone();
    let Some(ways) = shared.get_ways() else { return Ok(()) };
    let body = move || {
        if grown {
            match ask(&ways, GROW) {
                Ok((ExitStatus::Exited(0), _)) => {}
                Ok((_, answer)) => {
                    tracing::warn!(answer, "the file system was not grown to its disk's size");
                }
                Err(error) => tracing::debug!(%error, "nobody answers"),
            }
        }
        let began = Instant::now();
        let word = match boot {
            Boot::Auto => ask(&ways, SYSTEM),
            Boot::Agent => Ok((ExitStatus::Exited(0), "none".to_owned())),
        };
        match word {
            Ok((_, word)) if !word.is_empty() && shared.state().phase == Phase::Running => {
                shared.system(&word, began.elapsed());
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "nobody answers"),
        }
    };
    let thread = thread::Builder::new().name("settle".into()).spawn(body);
    thread.map(drop).map_err(|source| Error::Host { what: "a thread", source })
}

/// Runs a script in the guest. Gives the last line that it wrote, safe to show.
fn ask(ways: &Ways, script: &str) -> Result<(ExitStatus, String), Box<dyn std::error::Error>> {
    let stream = ways.vsock.connect(PORT, ways.patience)?;
    let (answer, writer) = pipe()?;
    let request = ExecRequest::new(["/bin/sh", "-c", script]);
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        // What is more than that is left in the pipe, and the guest finds nobody who reads it.
        let _ = answer.take(ANSWER).read_to_end(&mut text);
        text
    });
    let io = SessionIo { stdin: None, stdout: writer.as_fd(), stderr: writer.as_fd() };
    let end = run_session(stream, &request, io, None);
    drop(writer);
    let text = reader.join().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    Ok((end?.status, printable(last)))
}
