//! What is left to do once a machine's agent answers: its guest is made to fit its user, which whoever
//! starts it waits for; then the file system gets the room that the disk has, the init system is asked
//! for its word, and scripts are run that have not been.

use std::io::{Read, pipe};
use std::os::fd::AsFd;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use riad_agent::client::{ControlEvent, ExitStatus, SessionIo, control, run_session};
use riad_agent::protocol::{ExecRequest, PORT};
use riad_confine::Kind;

use super::shared::{Shared, Ways};
use super::{After, grow, setup};
use crate::machines::{Boot, Phase};
use crate::{Error, Stage, StageTime, printable};

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

/// Begins, in a thread that ends with the machine at the latest. `stages` are those of the start so
/// far.
pub(super) fn begin(
    shared: &Shared,
    mut stages: Vec<StageTime>,
    after: After,
) -> Result<(), Error> {
    let shared = shared.clone();
    let Some(ways) = shared.get_ways() else { return Ok(()) };
    // A guest that restarts has a thread of its own for its next start.
    let start = shared.state().reboots;
    let body = move || {
        let After { grown, boot, setup, limits } = after;
        if let Some(wanted) = setup {
            let began = Instant::now();
            shared.stage(Stage::Setup);
            setup::run(&shared, &ways, &wanted, limits);
            stages.push(StageTime { stage: Stage::Setup, time: began.elapsed() });
        }
        if !shared.running(start, &stages) {
            return;
        }
        if grown {
            match grow::file_system(&ways, 0, shared.root_partition()) {
                Ok(note) if note.is_empty() => {}
                Ok(note) => shared.warn(note),
                Err(error) => tracing::debug!(%error, "nobody answers"),
            }
        }
        let began = Instant::now();
        let word = match boot {
            Boot::Auto => ask(&ways, &script(SYSTEM), None),
            Boot::Agent => Ok((ExitStatus::Exited(0), "none".to_owned())),
        };
        match word {
            Ok((_, word)) if !word.is_empty() && shared.state().phase == Phase::Running => {
                shared.system(&word, began.elapsed());
                shared.provision();
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "nobody answers"),
        }
    };
    let thread = riad_confine::spawn(Kind::Control, "settle", body);
    thread.map(drop).map_err(|source| Error::Host { what: "a thread", source })
}

fn script(text: &str) -> ExecRequest {
    ExecRequest::new(["/bin/sh", "-c", text])
}

/// Runs a command in the guest, for `limit` at most. Gives the last line that it wrote, safe to show.
pub(super) fn ask(
    ways: &Ways,
    request: &ExecRequest,
    limit: Option<Duration>,
) -> Result<(ExitStatus, String), Box<dyn std::error::Error>> {
    let stream = ways.vsock.connect(PORT, ways.patience)?;
    let (answer, writer) = pipe()?;
    let reader = riad_confine::spawn(Kind::Control, "answer", move || {
        let mut text = Vec::new();
        // What is more than that is left in the pipe, and the guest finds nobody who reads it.
        let _ = answer.take(ANSWER).read_to_end(&mut text);
        text
    })?;
    let io = SessionIo { stdin: None, stdout: writer.as_fd(), stderr: writer.as_fd() };
    let (sender, receiver) = control()?;
    let (over, is_over) = channel::<()>();
    let end = thread::scope(|scope| {
        if let Some(limit) = limit {
            scope.spawn(move || {
                if is_over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                    let _ = sender.send(ControlEvent::Abort);
                }
            });
        }
        let end = run_session(stream, request, io, Some(&receiver));
        drop(over);
        end
    });
    drop(writer);
    let text = reader.join().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    Ok((end?.status, printable(last)))
}
