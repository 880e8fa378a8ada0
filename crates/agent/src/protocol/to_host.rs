//! What the agent says.

use super::frame::{put_data, put_frame};
use super::measures::Measures;
use super::wire::{Fields, put_text};
use super::{Frame, HEADER_LEN, MAX_PAYLOAD, MAX_TEXT, OutputStream, ProtocolError};

const STARTED: u8 = 0x81;
const FAILED: u8 = 0x82;
const STDIN_CREDIT: u8 = 0x83;
const STDIN_CLOSED: u8 = 0x84;
const STDOUT: u8 = 0x85;
const STDERR: u8 = 0x86;
const EXITED: u8 = 0x87;
const SIGNALED: u8 = 0x88;
const ERROR: u8 = 0x8f;
// 0x90 to 0x9f are kept for files.
const HELLO: u8 = 0xa0;
const MEASURES: u8 = 0xb0;
const CARD: u8 = 0xb1;

/// A message from the agent to the host. It comes from a guest, and a guest is hostile: texts have
/// no control characters left in them, and the bytes of the two output streams are just bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost<'a> {
    /// The command runs.
    Started {
        /// Its process number in the guest.
        pid: u32,
    },
    /// The command could not be started; nothing follows.
    Failed(Failure),
    /// The host may send this much more standard input.
    StdinCredit {
        /// In bytes.
        bytes: u32,
    },
    /// The command closed its standard input: nothing more of it is wanted.
    StdinClosed,
    /// The command wrote this to standard output (or to its terminal).
    Stdout(&'a [u8]),
    /// The command wrote this to standard error.
    Stderr(&'a [u8]),
    /// The command ended, after all its output; nothing follows.
    Exited {
        /// Its exit status.
        code: u8,
    },
    /// A signal ended the command, after all its output; nothing follows.
    Signaled {
        /// Linux's number of the signal, 1 to 127.
        signo: u8,
    },
    /// The agent did not understand the host; nothing follows.
    Error {
        /// One sentence.
        message: String,
    },
    /// Event channel: the agent is ready. The first frame of the channel.
    Hello(Hello),
    /// How much of the machine is in use; nothing follows. Since version 2.
    Measures(Measures),
    /// A network card is set up, or there is none yet with that hardware address; nothing follows.
    /// Since version 3.
    Card {
        /// What the guest calls it: `eth1`; `None` when it has not come yet.
        name: Option<String>,
    },
}

/// Why a command could not be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of reason.
    pub kind: FailureKind,
    /// Linux's error number in the guest; 0 if there is none.
    pub errno: i32,
    /// One sentence that names the command, user or directory.
    pub message: String,
}

/// The kinds of reasons why a command could not be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// There is no such command.
    NotFound,
    /// There is, but it cannot be executed.
    NotExecutable,
    /// There is no such user or group.
    BadUser,
    /// The working directory cannot be entered.
    BadCwd,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// The exit status that a shell or `env(1)` gives for this: 127, 126, or 125 for what is no
    /// fault of the command.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::NotFound => 127,
            Self::NotExecutable => 126,
            Self::BadUser | Self::BadCwd | Self::Other => 125,
        }
    }
}

/// The agent introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The version of the protocol that it speaks.
    pub version: u32,
    /// The version of the agent program, for people.
    pub agent: String,
    /// Where the boot spent its time.
    pub times: BootTimes,
}

/// Instants of the guest's boot, in nanoseconds of its `CLOCK_BOOTTIME` (since the kernel started).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BootTimes {
    /// The agent's first instruction.
    pub started: u64,
    /// The root file system is mounted; 0 if the agent did not mount it.
    pub root_mounted: u64,
    /// The agent accepts sessions.
    pub ready: u64,
}

impl<'a> ToHost<'a> {
    /// The longest payload of a kind, in bytes; `None` if the agent never sends it.
    pub(super) fn limit(kind: u8) -> Option<usize> {
        match kind {
            STARTED | STDIN_CREDIT | STDIN_CLOSED | EXITED | SIGNALED => Some(8),
            FAILED | ERROR | CARD => Some(MAX_TEXT + 16),
            HELLO => Some(2 * MAX_TEXT),
            MEASURES => Some(MAX_PAYLOAD),
            STDOUT | STDERR => Some(MAX_PAYLOAD),
            _ => None,
        }
    }

    /// Appends the message to `out`. Output takes as many frames as it needs; texts are cut to
    /// [`MAX_TEXT`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Started { pid } => {
                put_frame(out, STARTED, |out| out.extend_from_slice(&pid.to_le_bytes()));
            }
            Self::Failed(Failure { kind, errno, message }) => {
                let number = match kind {
                    FailureKind::Other => 0,
                    FailureKind::NotFound => 1,
                    FailureKind::NotExecutable => 2,
                    FailureKind::BadUser => 3,
                    FailureKind::BadCwd => 4,
                };
                put_frame(out, FAILED, |out| {
                    out.push(number);
                    out.extend_from_slice(&errno.to_le_bytes());
                    put_text(out, message);
                });
            }
            Self::StdinCredit { bytes } => {
                put_frame(out, STDIN_CREDIT, |out| out.extend_from_slice(&bytes.to_le_bytes()));
            }
            Self::StdinClosed => drop(put_frame(out, STDIN_CLOSED, |_| {})),
            Self::Stdout(data) => put_data(out, STDOUT, data),
            Self::Stderr(data) => put_data(out, STDERR, data),
            Self::Exited { code } => drop(put_frame(out, EXITED, |out| out.push(*code))),
            Self::Signaled { signo } => drop(put_frame(out, SIGNALED, |out| out.push(*signo))),
            Self::Error { message } => drop(put_frame(out, ERROR, |out| put_text(out, message))),
            Self::Hello(Hello { version, agent, times }) => {
                let BootTimes { started, root_mounted, ready } = times;
                put_frame(out, HELLO, |out| {
                    out.extend_from_slice(&version.to_le_bytes());
                    put_text(out, agent);
                    for instant in [started, root_mounted, ready] {
                        out.extend_from_slice(&instant.to_le_bytes());
                    }
                });
            }
            Self::Measures(measures) => {
                put_frame(out, MEASURES, |out| measures.put(out));
            }
            Self::Card { name } => {
                put_frame(out, CARD, |out| {
                    out.push(name.is_some().into());
                    name.iter().for_each(|name| put_text(out, name));
                });
            }
        }
    }

    /// Appends output whose bytes `read` appends itself: the way from a pipe into a frame without
    /// a copy. What is beyond [`MAX_PAYLOAD`] goes into a frame of its own; no bytes, no frame.
    /// Gives how many bytes there were.
    ///
    /// # Errors
    /// What `read` gives.
    pub fn encode_output<E>(
        stream: OutputStream,
        out: &mut Vec<u8>,
        read: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let kind = match stream {
            OutputStream::Stdout => STDOUT,
            OutputStream::Stderr => STDERR,
        };
        let start = out.len();
        let mut result = Ok(());
        let mut excess = Vec::new();
        let length = put_frame(out, kind, |out| {
            result = read(out);
            if out.len() - start > HEADER_LEN + MAX_PAYLOAD {
                excess = out.split_off(start + HEADER_LEN + MAX_PAYLOAD);
            }
        });
        if length == 0 || result.is_err() {
            out.truncate(start);
        }
        result?;
        put_data(out, kind, &excess);
        Ok(length + excess.len())
    }

    /// Reads a frame that came from a guest.
    ///
    /// # Errors
    /// The kind is unknown, or the payload is not of its form.
    pub fn parse(frame: Frame<'a>) -> Result<Self, ProtocolError> {
        let Frame { kind, payload } = frame;
        let mut fields = Fields::new(kind, payload);
        let message = match kind {
            STARTED => Self::Started { pid: fields.u32()? },
            FAILED => {
                let kind = match fields.u8()? {
                    1 => FailureKind::NotFound,
                    2 => FailureKind::NotExecutable,
                    3 => FailureKind::BadUser,
                    4 => FailureKind::BadCwd,
                    _ => FailureKind::Other,
                };
                Self::Failed(Failure { kind, errno: fields.i32()?, message: fields.text()? })
            }
            STDIN_CREDIT => Self::StdinCredit { bytes: fields.u32()? },
            STDIN_CLOSED => Self::StdinClosed,
            STDOUT => return Ok(Self::Stdout(payload)),
            STDERR => return Ok(Self::Stderr(payload)),
            EXITED => Self::Exited { code: fields.u8()? },
            SIGNALED => match fields.u8()? {
                signo @ 1..=127 => Self::Signaled { signo },
                _ => return Err(fields.malformed("a signal is not between 1 and 127")),
            },
            ERROR => Self::Error { message: fields.text()? },
            HELLO => {
                let version = fields.u32()?;
                let agent = fields.text()?;
                let times = BootTimes {
                    started: fields.u64()?,
                    root_mounted: fields.u64()?,
                    ready: fields.u64()?,
                };
                // Later versions may append to this one.
                return Ok(Self::Hello(Hello { version, agent, times }));
            }
            CARD => Self::Card { name: if fields.bool()? { Some(fields.text()?) } else { None } },
            // To this one too.
            MEASURES => return Ok(Self::Measures(Measures::parse(&mut fields)?)),
            _ => return Err(ProtocolError::UnknownKind { kind }),
        };
        fields.finish()?;
        Ok(message)
    }
}
