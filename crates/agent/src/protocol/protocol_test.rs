use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn to_guest_round_trip(message: &ToGuest<'_>) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    let mut decoder = Decoder::of_host();
    feed(&mut decoder, &bytes);
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!(&ToGuest::parse(frame).unwrap(), message);
    assert_eq!(decoder.next_frame().unwrap(), None);
}

fn to_host_round_trip(message: &ToHost<'_>) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let mut decoder = Decoder::of_guest();
    feed(&mut decoder, &bytes);
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!(&ToHost::parse(frame).unwrap(), message);
    assert_eq!(decoder.next_frame().unwrap(), None);
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

#[test]
fn every_message_survives_the_journey() {
    let mut request = ExecRequest::new(["sh", "-c", "echo \u{e9}"]).with_env("A", "b=c");
    to_guest_round_trip(&ToGuest::Exec(request.clone()));
    request.cwd = Some("/tmp".into());
    request.user = Some("nobody:nogroup".into());
    request.tty = Some(TtyRequest { rows: 24, cols: 80, term: "xterm".into() });
    request.stdin = true;
    to_guest_round_trip(&ToGuest::Exec(request));
    to_guest_round_trip(&ToGuest::Stdin(&[7; MAX_PAYLOAD]));
    to_guest_round_trip(&ToGuest::StdinEof);
    to_guest_round_trip(&ToGuest::Resize { rows: 1, cols: 65535 });
    to_guest_round_trip(&ToGuest::Signal { signo: 64 });
    to_guest_round_trip(&ToGuest::Close { stream: OutputStream::Stderr });
    to_guest_round_trip(&ToGuest::Welcome { version: 9 });
    to_guest_round_trip(&ToGuest::Shutdown { mode: ShutdownMode::Reboot });
    to_guest_round_trip(&ToGuest::SetTime { unix_nanos: u64::MAX });
    to_guest_round_trip(&ToGuest::Measure);
    let addresses = vec!["10.77.0.2/24".to_owned(), "fd00::2/64".to_owned()];
    let card = CardRequest { mac: "02:72:0a:4d:00:02".to_owned(), addresses };
    to_guest_round_trip(&ToGuest::SetUpCard(card));
    to_guest_round_trip(&ToGuest::SetUpCard(CardRequest::default()));

    to_host_round_trip(&ToHost::Started { pid: 7 });
    to_host_round_trip(&ToHost::Failed(Failure {
        kind: FailureKind::NotFound,
        errno: 2,
        message: "foo: no such command".into(),
    }));
    to_host_round_trip(&ToHost::StdinCredit { bytes: u32::MAX });
    to_host_round_trip(&ToHost::StdinClosed);
    to_host_round_trip(&ToHost::Stdout(b"\x1b[0m"));
    to_host_round_trip(&ToHost::Stderr(&[0; MAX_PAYLOAD]));
    to_host_round_trip(&ToHost::Exited { code: 255 });
    to_host_round_trip(&ToHost::Signaled { signo: 9 });
    to_host_round_trip(&ToHost::Error { message: "what?".into() });
    let times = BootTimes { started: 1, root_mounted: 2, ready: 3 };
    to_host_round_trip(&ToHost::Hello(Hello { version: VERSION, agent: "0.1.0".into(), times }));
    let root = FileSystem { mounted_on: "/".into(), size: 9, used: 5, available: 3 };
    let longest = FileSystem { mounted_on: "m".repeat(1024), ..root.clone() };
    let mut file_systems = vec![longest; MOST_FILE_SYSTEMS];
    file_systems[0] = root;
    let measures = Measures {
        uptime: 1,
        memory_total: 2,
        memory_available: u64::MAX,
        swap_total: 4,
        swap_free: 5,
        load: [6, 7, 8],
        tasks: 9,
        file_systems,
    };
    to_host_round_trip(&ToHost::Measures(measures));
    to_host_round_trip(&ToHost::Measures(Measures::default()));
    to_host_round_trip(&ToHost::Card { name: Some("eth1".to_owned()) });
    to_host_round_trip(&ToHost::Card { name: None });
}

#[test]
fn long_data_is_cut_into_frames() {
    let data = vec![5; 3 * MAX_PAYLOAD + 1];
    let mut bytes = Vec::new();
    ToHost::Stdout(&data).encode(&mut bytes);
    assert_eq!(bytes.len(), data.len() + 4 * HEADER_LEN);
    bytes.clear();
    ToHost::Stdout(&[]).encode(&mut bytes);
    assert!(bytes.is_empty());
}

#[test]
fn a_long_command_line_fits_and_a_longer_one_says_so() {
    to_guest_round_trip(&ToGuest::Exec(ExecRequest::new(
        [vec![b'a'; 512 * 1024]].map(|bytes| String::from_utf8(bytes).unwrap()),
    )));
    let mut out = vec![1];
    let error = ToGuest::Exec(ExecRequest::new(["a".repeat(MAX_EXEC_PAYLOAD)])).encode(&mut out);
    assert!(matches!(error, Err(ProtocolError::RequestTooLong { .. })));
    assert_eq!(out, [1]);
    let error = ToGuest::Exec(ExecRequest::new(["a\0b"])).encode(&mut out);
    assert!(matches!(error, Err(ProtocolError::Nul { .. })));
}

#[test]
fn headers_are_refused_before_their_payload_arrives() {
    let mut decoder = Decoder::of_guest();
    feed(&mut decoder, &[0xff, 0xff, 0xff, 0xff, 0x85]);
    assert!(matches!(decoder.next_frame(), Err(ProtocolError::TooLong { limit: MAX_PAYLOAD, .. })));
    let mut decoder = Decoder::of_guest();
    feed(&mut decoder, &[0, 0, 0, 0, 0x01]); // what only the host says
    assert_eq!(decoder.next_frame(), Err(ProtocolError::UnknownKind { kind: 1 }));
    let mut decoder = Decoder::of_guest();
    feed(&mut decoder, &[9, 0, 0, 0, 0x87]);
    assert!(matches!(decoder.next_frame(), Err(ProtocolError::TooLong { limit: 8, .. })));
}

#[test]
fn texts_from_the_guest_cannot_drive_a_terminal() {
    let mut bytes = Vec::new();
    ToHost::Error { message: "a\x1b[2Jb\nc\u{9b}d".into() }.encode(&mut bytes);
    let mut decoder = Decoder::of_guest();
    feed(&mut decoder, &bytes);
    let message = ToHost::parse(decoder.next_frame().unwrap().unwrap()).unwrap();
    assert_eq!(message, ToHost::Error { message: "a [2Jb c d".into() });
}

#[test]
fn welcome_and_hello_may_grow() {
    let frame = Frame { kind: 0x20, payload: &[2, 0, 0, 0, 1, 2, 3] };
    assert_eq!(ToGuest::parse(frame).unwrap(), ToGuest::Welcome { version: 2 });
    let mut bytes = Vec::new();
    let hello = ToHost::Hello(Hello { version: 3, agent: "x".into(), times: BootTimes::default() });
    hello.encode(&mut bytes);
    bytes.extend_from_slice(b"more");
    assert_eq!(ToHost::parse(Frame { kind: 0xa0, payload: &bytes[HEADER_LEN..] }).unwrap(), hello);
}

proptest! {
    /// What the fuzz target does, for a moment: any bytes, in any pieces, within bounded memory.
    #[test]
    fn no_bytes_upset_the_decoder(
        pieces in vec(vec(any::<u8>(), 0..40), 0..40),
        of_guest in any::<bool>(),
        // Likely kinds and small lengths, so that many frames are whole.
        heads in vec((0u8..24, prop_oneof![0x01u8..0x24, 0x81u8..0xa1]), 0..40),
    ) {
        let mut decoder = if of_guest { Decoder::of_guest() } else { Decoder::of_host() };
        let mut heads = heads.into_iter();
        'stream: for piece in pieces {
            if let Some((length, kind)) = heads.next() {
                feed(&mut decoder, &[length, 0, 0, 0, kind]);
            }
            feed(&mut decoder, &piece);
            loop {
                match decoder.next_frame() {
                    Ok(Some(frame)) => {
                        let _ = ToGuest::parse(frame);
                        let _ = ToHost::parse(frame);
                    }
                    Ok(None) => break,
                    Err(_) => break 'stream,
                }
            }
            let bound = if of_guest { 192 << 10 } else { 2 << 20 };
            prop_assert!(decoder.capacity() <= bound);
        }
    }

    /// Frames come out as they went in, however the stream was cut.
    #[test]
    fn cuts_do_not_matter(
        payloads in vec(vec(any::<u8>(), 1..5000), 0..30),
        cuts in vec(1usize..9000, 1..60),
    ) {
        let mut bytes = Vec::new();
        for payload in &payloads {
            ToHost::Stdout(payload).encode(&mut bytes);
        }
        let mut decoder = Decoder::of_guest();
        let mut rest = &bytes[..];
        let mut cuts = cuts.iter().cycle();
        let mut seen = Vec::new();
        while !rest.is_empty() {
            let count = rest.len().min(*cuts.next().unwrap());
            feed(&mut decoder, &rest[..count]);
            rest = &rest[count..];
            while let Some(frame) = decoder.next_frame().unwrap() {
                seen.push(frame.payload.to_vec());
            }
        }
        prop_assert_eq!(seen, payloads);
    }
}
