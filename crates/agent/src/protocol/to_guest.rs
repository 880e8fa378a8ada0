//! What the host says.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::frame::{put_data, put_frame};
use super::wire::{Fields, put_bytes, put_text};
use super::{Frame, MAX_EXEC_PAYLOAD, MAX_PAYLOAD, MAX_TEXT, ProtocolError};

const EXEC: u8 = 0x01;
const STDIN: u8 = 0x02;
const STDIN_EOF: u8 = 0x03;
const RESIZE: u8 = 0x04;
const SIGNAL: u8 = 0x05;
const CLOSE: u8 = 0x06;
// 0x10 to 0x1f are kept for files.
const WELCOME: u8 = 0x20;
const SHUTDOWN: u8 = 0x21;
const SET_TIME: u8 = 0x22;
const MEASURE: u8 = 0x30;
const SET_UP_CARD: u8 = 0x31;

/// A message from the host to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGuest<'a> {
    /// Run this; the first frame of a session.
    Exec(ExecRequest),
    /// Bytes for the command's standard input, no more than the agent has given credit for.
    Stdin(&'a [u8]),
    /// The standard input ends here.
    StdinEof,
    /// The terminal has a new size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters a line.
        cols: u16,
    },
    /// Send a signal, by Linux's number, to the command's process group.
    Signal {
        /// 1 to 64.
        signo: u8,
    },
    /// Nobody reads this stream any more: writing to it fails in the guest as it would on the host.
    Close {
        /// Which stream.
        stream: OutputStream,
    },
    /// Event channel: the answer to [`ToHost::Hello`](super::ToHost::Hello).
    Welcome {
        /// The version of the protocol that the host speaks.
        version: u32,
    },
    /// Event channel: stop the machine in an orderly way.
    Shutdown {
        /// And then what.
        mode: ShutdownMode,
    },
    /// Event channel: set the guest's clock.
    SetTime {
        /// Nanoseconds since 1970-01-01 00:00 UTC.
        unix_nanos: u64,
    },
    /// Say how much of the machine is in use; the first and only frame of its connection. Since
    /// version 2.
    Measure,
    /// Set up a network card that came while the machine runs; the first and only frame of its
    /// connection. Since version 3.
    SetUpCard(CardRequest),
}

/// A network card that came while the machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CardRequest {
    /// Its hardware address, as `/sys/class/net/*/address` has it.
    pub mac: String,
    /// The machine's addresses there, each with its prefix length, as in `192.0.2.5/24`; at most
    /// [`MOST_ADDRESSES`](Self::MOST_ADDRESSES).
    pub addresses: Vec<String>,
}

impl CardRequest {
    /// Addresses of one card.
    pub const MOST_ADDRESSES: usize = 16;

    fn put(&self, out: &mut Vec<u8>) {
        let Self { mac, addresses } = self;
        put_text(out, mac);
        out.extend_from_slice(&u32::try_from(addresses.len()).unwrap_or(u32::MAX).to_le_bytes());
        addresses.iter().for_each(|address| put_text(out, address));
    }

    fn parse(fields: &mut Fields<'_>) -> Result<Self, ProtocolError> {
        let mac = fields.text()?;
        let count = fields.count(4)?;
        if count > Self::MOST_ADDRESSES {
            return Err(fields.malformed("a card has too many addresses"));
        }
        let addresses = (0..count).map(|_| fields.text()).collect::<Result<_, _>>()?;
        Ok(Self { mac, addresses })
    }
}

/// One of a command's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What follows an orderly shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// The machine is off.
    PowerOff,
    /// The machine starts again.
    Reboot,
}

/// A command to run in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecRequest {
    /// The command and its arguments. Looked up in the guest's `PATH` if it has no slash.
    pub argv: Vec<OsString>,
    /// Added to, or replacing, what the agent sets (`PATH`, `HOME`, `USER`, `LOGNAME`, `SHELL`, and
    /// `TERM` on a terminal).
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs; the user's home, or `/` if that does not exist, when `None`.
    pub cwd: Option<OsString>,
    /// Who runs it: `name`, `uid`, `name:group` or `uid:gid`; root when `None`.
    pub user: Option<String>,
    /// A terminal for it; three pipes when `None`.
    pub tty: Option<TtyRequest>,
    /// Whether it has a standard input; it reads `/dev/null` otherwise.
    pub stdin: bool,
}

/// The terminal a command gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TtyRequest {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
    /// The value of `TERM`.
    pub term: String,
}

impl ExecRequest {
    /// Runs `argv` as root, with pipes and no standard input.
    pub fn new<S: Into<OsString>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Adds a variable to the environment.
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The command's name, for messages.
    pub fn name(&self) -> String {
        self.argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    fn check(&self) -> Result<(), ProtocolError> {
        let has_nul = |text: &OsString| text.as_bytes().contains(&0);
        if self.argv.iter().any(has_nul) {
            return Err(ProtocolError::Nul { what: "the command line" });
        }
        if self.env.iter().any(|(name, value)| has_nul(name) || has_nul(value)) {
            return Err(ProtocolError::Nul { what: "the environment" });
        }
        if self.cwd.as_ref().is_some_and(has_nul) {
            return Err(ProtocolError::Nul { what: "the working directory" });
        }
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        let Self { argv, env, cwd, user, tty, stdin } = self;
        let count = |out: &mut Vec<u8>, n: usize| {
            out.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
        };
        count(out, argv.len());
        argv.iter().for_each(|argument| put_bytes(out, argument.as_bytes()));
        count(out, env.len());
        for (name, value) in env {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
        out.push(cwd.is_some().into());
        cwd.iter().for_each(|cwd| put_bytes(out, cwd.as_bytes()));
        out.push(user.is_some().into());
        user.iter().for_each(|user| put_text(out, user));
        out.push(tty.is_some().into());
        if let Some(TtyRequest { rows, cols, term }) = tty {
            out.extend_from_slice(&rows.to_le_bytes());
            out.extend_from_slice(&cols.to_le_bytes());
            put_text(out, term);
        }
        out.push((*stdin).into());
    }

    fn parse(fields: &mut Fields<'_>) -> Result<Self, ProtocolError> {
        let string = |fields: &mut Fields<'_>| -> Result<OsString, ProtocolError> {
            let bytes = fields.bytes()?;
            if bytes.contains(&0) {
                return Err(fields.malformed("a string contains NUL"));
            }
            Ok(OsStr::from_bytes(bytes).to_owned())
        };
        let argv = (0..fields.count(4)?).map(|_| string(fields)).collect::<Result<_, _>>()?;
        let env = (0..fields.count(8)?)
            .map(|_| Ok((string(fields)?, string(fields)?)))
            .collect::<Result<_, _>>()?;
        let cwd = if fields.bool()? { Some(string(fields)?) } else { None };
        let user = if fields.bool()? { Some(fields.text()?) } else { None };
        let tty = if fields.bool()? {
            Some(TtyRequest { rows: fields.u16()?, cols: fields.u16()?, term: fields.text()? })
        } else {
            None
        };
        Ok(Self { argv, env, cwd, user, tty, stdin: fields.bool()? })
    }
}

impl<'a> ToGuest<'a> {
    /// The longest payload of a kind, in bytes; `None` if the host never sends it.
    pub(super) fn limit(kind: u8) -> Option<usize> {
        match kind {
            EXEC => Some(MAX_EXEC_PAYLOAD),
            STDIN => Some(MAX_PAYLOAD),
            STDIN_EOF | RESIZE | SIGNAL | CLOSE | SHUTDOWN | SET_TIME | MEASURE => Some(8),
            WELCOME | SET_UP_CARD => Some(MAX_TEXT),
            _ => None,
        }
    }

    /// Appends the message to `out`. [`Stdin`](Self::Stdin) takes as many frames as it needs.
    ///
    /// # Errors
    /// An [`Exec`](Self::Exec) that is too long or holds a NUL; `out` is then unchanged.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        match self {
            Self::Exec(request) => {
                request.check()?;
                let start = out.len();
                let length = put_frame(out, EXEC, |out| request.put(out));
                if length > MAX_EXEC_PAYLOAD {
                    out.truncate(start);
                    return Err(ProtocolError::RequestTooLong { length, limit: MAX_EXEC_PAYLOAD });
                }
            }
            Self::Stdin(data) => put_data(out, STDIN, data),
            Self::StdinEof => drop(put_frame(out, STDIN_EOF, |_| {})),
            Self::Resize { rows, cols } => {
                put_frame(out, RESIZE, |out| {
                    out.extend_from_slice(&rows.to_le_bytes());
                    out.extend_from_slice(&cols.to_le_bytes());
                });
            }
            Self::Signal { signo } => drop(put_frame(out, SIGNAL, |out| out.push(*signo))),
            Self::Close { stream } => {
                let number = match stream {
                    OutputStream::Stdout => 1,
                    OutputStream::Stderr => 2,
                };
                put_frame(out, CLOSE, |out| out.push(number));
            }
            Self::Welcome { version } => {
                put_frame(out, WELCOME, |out| out.extend_from_slice(&version.to_le_bytes()));
            }
            Self::Shutdown { mode } => {
                let number = match mode {
                    ShutdownMode::PowerOff => 0,
                    ShutdownMode::Reboot => 1,
                };
                put_frame(out, SHUTDOWN, |out| out.push(number));
            }
            Self::SetTime { unix_nanos } => {
                put_frame(out, SET_TIME, |out| out.extend_from_slice(&unix_nanos.to_le_bytes()));
            }
            Self::Measure => drop(put_frame(out, MEASURE, |_| {})),
            Self::SetUpCard(card) => {
                put_frame(out, SET_UP_CARD, |out| card.put(out));
            }
        }
        Ok(())
    }

    /// Reads a frame that came from the host.
    ///
    /// # Errors
    /// The kind is unknown, or the payload is not of its form.
    pub fn parse(frame: Frame<'a>) -> Result<Self, ProtocolError> {
        let Frame { kind, payload } = frame;
        let mut fields = Fields::new(kind, payload);
        let message = match kind {
            EXEC => Self::Exec(ExecRequest::parse(&mut fields)?),
            STDIN => return Ok(Self::Stdin(payload)),
            STDIN_EOF => Self::StdinEof,
            RESIZE => Self::Resize { rows: fields.u16()?, cols: fields.u16()? },
            SIGNAL => match fields.u8()? {
                signo @ 1..=64 => Self::Signal { signo },
                _ => return Err(fields.malformed("a signal is not between 1 and 64")),
            },
            CLOSE => Self::Close {
                stream: match fields.u8()? {
                    1 => OutputStream::Stdout,
                    2 => OutputStream::Stderr,
                    _ => return Err(fields.malformed("an output stream is neither 1 nor 2")),
                },
            },
            // Later versions may append to this one.
            WELCOME => return Ok(Self::Welcome { version: fields.u32()? }),
            SHUTDOWN => Self::Shutdown {
                mode: match fields.u8()? {
                    0 => ShutdownMode::PowerOff,
                    1 => ShutdownMode::Reboot,
                    _ => return Err(fields.malformed("a shutdown mode is neither 0 nor 1")),
                },
            },
            SET_TIME => Self::SetTime { unix_nanos: fields.u64()? },
            MEASURE => Self::Measure,
            SET_UP_CARD => Self::SetUpCard(CardRequest::parse(&mut fields)?),
            _ => return Err(ProtocolError::UnknownKind { kind }),
        };
        fields.finish()?;
        Ok(message)
    }
}
