//! A terminal: window size, Ctrl-C, job control, and the terminal as it was afterwards.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::harness::{IMAGE, end_to_end, riad};

const PATIENCE: Duration = Duration::from_secs(240);

/// A riad on a terminal of its own.
struct Session {
    child: Child,
    master: OwnedFd,
    slave: OwnedFd,
    shown: Arc<(Mutex<Vec<u8>>, Condvar)>,
    /// How much of what was shown has been expected already.
    seen: usize,
    before: Termios,
}

impl Session {
    fn start(command: &mut Command, rows: u16, cols: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        resize(&master, rows, cols);
        let before = tcgetattr(&slave).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm-256color");
        let child = command.spawn().expect("riad runs");
        let shown = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (writer, mut reader) = (shown.clone(), File::from(master.try_clone().unwrap()));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                writer.0.lock().unwrap().extend(&buffer[..count]);
                writer.1.notify_all();
            }
        });
        Self { child, master, slave, shown, seen: 0, before }
    }

    /// Types.
    fn keys(&self, keys: &str) {
        File::from(self.master.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until this is shown, after what was expected before.
    fn expect(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut shown = self.shown.0.lock().unwrap();
        loop {
            let text = String::from_utf8_lossy(&shown[self.seen..]).into_owned();
            if let Some(at) = text.find(words) {
                self.seen += at + words.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {words:?} in {text:?}");
            shown = self.shown.1.wait_timeout(shown, left).unwrap().0;
        }
    }

    fn resize(&self, rows: u16, cols: u16) {
        resize(&self.master, rows, cols);
        // The kernel tells the foreground group, of which riad is not: this terminal is not its own.
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::WINCH).unwrap();
    }

    /// The status at the end, and whether the terminal is as it was.
    fn end(mut self) -> (Option<i32>, bool) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    self.child.kill().unwrap();
                    panic!("riad did not end: {:?}", self.shown.0.lock().unwrap());
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let after = tcgetattr(&self.slave).unwrap();
        let is_same = after.local_modes == self.before.local_modes
            && after.input_modes == self.before.input_modes
            && after.output_modes == self.before.output_modes;
        (status.code(), is_same)
    }
}

fn resize(master: &OwnedFd, rows: u16, cols: u16) {
    let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}

fn shell() -> Command {
    let mut command = riad();
    command.args(["run", "--cpus", "1", "--memory", "512M", IMAGE]);
    command
}

#[test]
fn an_interactive_shell_has_a_terminal_of_the_windows_size() {
    end_to_end!();
    let mut session = Session::start(&mut shell(), 33, 97);
    session.expect("# ");
    session.keys("stty size; tty; echo term=$TERM\r");
    session.expect("33 97");
    session.expect("/dev/pts/");
    session.expect("term=xterm-256color");
    session.resize(40, 100);
    session.keys("sleep 1; stty size\r");
    session.expect("40 100");

    // Ctrl-C reaches what runs, and not riad.
    session.keys("sleep 1000; echo a''fter=$?\r");
    session.expect("sleep 1000");
    std::thread::sleep(Duration::from_secs(3));
    session.keys("\u{3}");
    session.expect("# ");
    session.keys("echo st''atus=$?\r");
    session.expect("status=130");

    // Job control.
    session.keys("sleep 1000 &\r");
    session.expect("[1]");
    session.keys("jobs; kill %1; wait; echo do''ne\r");
    session.expect("Running");
    session.expect("done");

    session.keys("exit 7\r");
    assert_eq!(session.end(), (Some(7), true));
}

#[test]
fn a_stage_is_shown_while_one_waits_and_gone_afterwards() {
    end_to_end!();
    let mut command = shell();
    command.args(["--", "echo", "first", "words"]);
    let mut session = Session::start(&mut command, 24, 80);
    session.expect("kernel");
    session.expect("first words");
    assert_eq!(session.end(), (Some(0), true));
}

#[test]
fn a_terminal_that_goes_away_ends_the_session_and_is_restored() {
    end_to_end!();
    let mut session = Session::start(&mut shell(), 24, 80);
    session.expect("# ");
    kill_process(Pid::from_child(&session.child), Signal::TERM).unwrap();
    assert_eq!(session.end(), (Some(143), true));
}
