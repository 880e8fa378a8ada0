//! The agent's protocol, in both directions, and the host's side of a session.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use riad_agent::client::{Events, SessionIo, run_session};
use riad_agent::protocol::{
    BootTimes, CardRequest, Decoder, ExecRequest, Failure, FailureKind, FileSystem, Hello,
    MAX_TEXT, Measures, OutputStream, ShutdownMode, ToGuest, ToHost, TtyRequest,
};

use super::Target;
use crate::input::Input;

/// What a guest says to the host's decoder.
pub(super) const GUEST_SAYS: Target = Target {
    name: "agent-to-host",
    what: "frames from a guest, as the host decodes them",
    unit: "steps",
    run: guest_says,
    seeds: guest_seeds,
    generate: None,
    words: WORDS,
};

/// What the host says to the agent's decoder.
pub(super) const HOST_SAYS: Target = Target {
    name: "agent-to-guest",
    what: "frames from the host, as the agent decodes them",
    unit: "steps",
    run: host_says,
    seeds: host_seeds,
    generate: None,
    words: WORDS,
};

/// A whole session with a guest that says anything.
pub(super) const SESSION: Target = Target {
    name: "agent-session",
    what: "a command's session and the event channel, with a guest that says anything",
    unit: "steps",
    run: session,
    seeds: session_seeds,
    generate: None,
    words: WORDS,
};

/// Headers of frames.
const WORDS: &[&[u8]] = &[
    &[4, 0, 0, 0, 0x81],
    &[1, 0, 0, 0, 0x87],
    &[0, 0, 1, 0, 0x85],
    &[1, 0, 1, 0, 0x86],
    &[0xff, 0xff, 0xff, 0xff, 0x85],
    &[0, 0, 16, 0, 0x01],
    &[9, 0, 0, 0, 0x82, 1, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0, 0x10, 0, 0],
];

/// What the decoder may hold of a guest's frames, bytes.
const GUEST_MEMORY: usize = 192 << 10;

/// Feeds pieces of any size to a decoder and hands on each frame. Tells how many there were.
fn pieces(
    bytes: &[u8],
    decoder: &mut Decoder,
    mut each: impl FnMut(&mut Decoder) -> Result<bool, ()>,
) -> u64 {
    let mut frames = 0;
    let mut input = Input::new(bytes);
    let piece = usize::from(input.u16()).max(1);
    while !input.is_empty() {
        let space = decoder.space();
        assert!(!space.is_empty(), "there is always room to read into");
        let piece = input.take(piece.min(space.len()));
        space[..piece.len()].copy_from_slice(piece);
        decoder.filled(piece.len());
        loop {
            match each(decoder) {
                Ok(true) => frames += 1,
                Ok(false) => break,
                Err(()) => return frames,
            }
        }
    }
    frames
}

fn guest_says(bytes: &[u8]) -> u64 {
    let mut decoder = Decoder::of_guest();
    pieces(bytes, &mut decoder, |decoder| {
        assert!(decoder.capacity() < GUEST_MEMORY, "the decoder grew");
        let Some(frame) = decoder.next_frame().map_err(drop)? else { return Ok(false) };
        let message = ToHost::parse(frame).map_err(drop)?;
        let mut again = Vec::new();
        message.encode(&mut again);
        let mut second = Decoder::of_guest();
        feed(&mut second, &again);
        if let Ok(Some(frame)) = second.next_frame() {
            assert_eq!(ToHost::parse(frame).as_ref(), Ok(&message), "what is said comes back");
        }
        if let ToHost::Failed(failure) = &message {
            assert!(failure.message.len() <= 3 * MAX_TEXT);
        }
        Ok(true)
    })
}

fn host_says(bytes: &[u8]) -> u64 {
    let mut decoder = Decoder::of_host();
    pieces(bytes, &mut decoder, |decoder| {
        let Some(frame) = decoder.next_frame().map_err(drop)? else { return Ok(false) };
        let message = ToGuest::parse(frame).map_err(drop)?;
        let mut again = Vec::new();
        if message.encode(&mut again).is_ok() {
            let mut second = Decoder::of_host();
            feed(&mut second, &again);
            if let Ok(Some(frame)) = second.next_frame() {
                assert_eq!(ToGuest::parse(frame).as_ref(), Ok(&message), "what is said comes back");
            }
        }
        Ok(true)
    })
}

fn feed(decoder: &mut Decoder, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let space = decoder.space();
        let count = space.len().min(bytes.len());
        space[..count].copy_from_slice(&bytes[..count]);
        decoder.filled(count);
        bytes = &bytes[count..];
    }
}

fn session(bytes: &[u8]) -> u64 {
    let (Ok((ours, mut theirs)), Ok(null)) =
        (UnixStream::pair(), std::fs::File::options().read(true).write(true).open("/dev/null"))
    else {
        return 0;
    };
    // What does not fit into the socket is not said.
    if theirs.set_nonblocking(true).is_err() {
        return 0;
    }
    let (kind, said) = bytes.split_first().unwrap_or((&0, &[]));
    let _ = theirs.write(said);
    let _ = theirs.shutdown(std::net::Shutdown::Write);
    if kind % 4 == 3 {
        return Events::accept(ours, Some(Duration::from_secs(1))).is_ok().into();
    }
    let mut request = ExecRequest::new(["true"]);
    request.stdin = kind % 2 == 1;
    let io = SessionIo {
        stdin: request.stdin.then(|| null.as_fd()),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
    };
    run_session(ours, &request, io, None).is_ok().into()
}

/// Conversations, each as a list of messages.
fn said() -> Vec<Vec<ToHost<'static>>> {
    let failure =
        Failure { kind: FailureKind::NotFound, errno: 2, message: "no such command".to_owned() };
    let times = BootTimes { started: 1, root_mounted: 2, ready: 3 };
    vec![
        vec![
            ToHost::Started { pid: 7 },
            ToHost::StdinCredit { bytes: 1 << 18 },
            ToHost::Stdout(b"hello\n"),
            ToHost::Stderr(b"oh\n"),
            ToHost::StdinClosed,
            ToHost::Exited { code: 3 },
        ],
        vec![
            ToHost::Started { pid: 7 },
            ToHost::Stdout(&[7; 70_000]),
            ToHost::Signaled { signo: 9 },
        ],
        vec![ToHost::Failed(failure)],
        vec![ToHost::Error { message: "what?".to_owned() }],
        vec![ToHost::Hello(Hello { version: 1, agent: "0.1.0".to_owned(), times })],
    ]
}

/// What is said on the event channel later on, and in no session.
fn measured() -> Vec<ToHost<'static>> {
    vec![ToHost::Measures(Measures {
        memory_total: 1 << 30,
        file_systems: vec![FileSystem { mounted_on: "/".to_owned(), ..Default::default() }],
        ..Measures::default()
    })]
}

/// Conversations after a few bytes that say how they are held.
fn seeds(said: Vec<Vec<ToHost<'static>>>, firsts: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for messages in said {
        for first in firsts {
            let mut bytes = first.to_vec();
            messages.iter().for_each(|message| message.encode(&mut bytes));
            seeds.push(bytes);
        }
    }
    seeds
}

/// Cut into pieces of 4096 bytes, and of 3.
fn guest_seeds() -> Vec<Vec<u8>> {
    let mut said = said();
    said.push(measured());
    seeds(said, &[&[0, 0x10], &[3, 0]])
}

/// In a session without input, in one with, and on the event channel.
fn session_seeds() -> Vec<Vec<u8>> {
    seeds(said(), &[&[0], &[1], &[3]])
}

fn host_seeds() -> Vec<Vec<u8>> {
    let tty = Some(TtyRequest { rows: 24, cols: 80, term: "xterm".to_owned() });
    let plain = ExecRequest::new(["sh", "-c", "true"]).with_env("A", "b");
    let full = ExecRequest {
        cwd: Some("/tmp".into()),
        user: Some("nobody".to_owned()),
        tty,
        stdin: true,
        ..plain.clone()
    };
    let said: [&[ToGuest<'_>]; 3] = [
        &[ToGuest::Exec(plain), ToGuest::StdinEof],
        &[
            ToGuest::Exec(full),
            ToGuest::Stdin(b"input"),
            ToGuest::Resize { rows: 1, cols: 2 },
            ToGuest::Signal { signo: 2 },
            ToGuest::Close { stream: OutputStream::Stdout },
        ],
        &[
            ToGuest::Welcome { version: 2 },
            ToGuest::SetTime { unix_nanos: 5 },
            ToGuest::Measure,
            ToGuest::SetUpCard(CardRequest {
                mac: "02:72:0a:4d:00:02".to_owned(),
                addresses: vec!["10.77.0.2/24".to_owned()],
            }),
            ToGuest::Shutdown { mode: ShutdownMode::Reboot },
        ],
    ];
    said.iter()
        .map(|messages| {
            let mut bytes = vec![0, 0x10];
            for message in *messages {
                // A seed that cannot be said is no seed.
                let _ = message.encode(&mut bytes);
            }
            bytes
        })
        .collect()
}
