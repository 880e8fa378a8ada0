use super::*;
use crate::virtio::driver_test::{Choices, Guest, until};

/// Keeps what it is given.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(buf);
        Ok(buf.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn setup() -> (Kept, ConsoleHandle, Guest) {
    let kept = Kept::default();
    let (device, handle) = Console::new(Box::new(kept.clone()));
    (kept, handle, Guest::new(Box::new(device), Choices::default()))
}

#[test]
fn output_reaches_the_sink_in_order() {
    let (kept, _, mut guest) = setup();
    let mut expected = Vec::new();
    for round in 0..500u32 {
        let text = format!("line {round}\n");
        guest.submit(TRANSMIT, &[text.as_bytes(), b"+"], &[]);
        expected.extend_from_slice(text.as_bytes());
        expected.push(b'+');
        assert_eq!(guest.wait(TRANSMIT).len, 0);
    }
    assert_eq!(*lock(&kept.0), expected);
}

#[test]
fn input_waits_for_room_and_pushes_back() {
    let (_, handle, mut guest) = setup();
    assert_eq!(handle.push(b"hello"), 5);
    guest.submit(RECEIVE, &[], &[3]);
    assert_eq!(
        guest.wait(RECEIVE),
        crate::virtio::driver_test::Used { head: 0, len: 3, data: b"hel".to_vec() }
    );
    let big = vec![b'x'; INPUT_MAX];
    assert_eq!(handle.push(&big), INPUT_MAX - 2);
    assert_eq!(handle.push(b"y"), 0);
    assert!(!handle.wait_for_room(Duration::from_millis(5)));
    guest.submit(RECEIVE, &[], &[100]);
    let used = guest.wait(RECEIVE);
    assert_eq!((used.len, &used.data[..4]), (100, &b"loxx"[..]));
    assert!(handle.wait_for_room(Duration::from_millis(5)));
    assert_eq!(handle.push(&big), 100);
}

#[test]
fn a_megabyte_of_input_arrives() {
    let (_, handle, mut guest) = setup();
    let sent: Vec<u8> = (0..1 << 20).map(|n: u32| (n * 7 + (n >> 8)) as u8).collect();
    let to_send = sent.clone();
    let typist = std::thread::spawn(move || {
        let mut rest = to_send.as_slice();
        while !rest.is_empty() {
            assert!(handle.wait_for_room(Duration::from_secs(20)));
            rest = &rest[handle.push(rest)..];
        }
    });
    let mut got = Vec::new();
    while got.len() < sent.len() {
        while guest.rings[0].has_room(1) {
            guest.submit(RECEIVE, &[], &[777]);
        }
        let used = guest.wait(RECEIVE);
        got.extend_from_slice(&used.data[..used.len as usize]);
    }
    typist.join().unwrap();
    assert!(got == sent);
}

#[test]
fn resizing_interrupts_and_changes_the_generation() {
    let (_, handle, guest) = setup();
    let generation = guest.read16(0x14) >> 8;
    handle.resize(120, 40);
    assert_eq!(guest.messages.count(2), 1);
    assert_ne!(guest.read16(0x14) >> 8, generation);
    assert_eq!(guest.read32(0x2000), 120 | (40 << 16));
    assert_eq!(guest.read32(0x2004), 1);
    handle.resize(120, 40);
    assert_eq!(guest.messages.count(2), 1, "no change, no interrupt");
}

#[test]
fn typing_before_the_driver_runs_is_kept() {
    let (device, handle) = Console::new(Box::new(Kept::default()));
    let mut guest = Guest::idle(Box::new(device), Choices::default());
    assert_eq!(handle.push(b"early"), 5);
    handle.resize(1, 2);
    guest.start(Choices::default());
    guest.submit(RECEIVE, &[], &[16]);
    let used = guest.wait(RECEIVE);
    assert_eq!(&used.data[..used.len as usize], b"early");
}

#[test]
fn saved_and_restored_it_goes_on() {
    let (kept, handle, mut guest) = setup();
    handle.resize(80, 25);
    guest.submit(TRANSMIT, &[b"one"], &[]);
    guest.wait(TRANSMIT);
    guest.pci.pause();
    assert_eq!(handle.push(b"typed"), 5);
    guest.submit(TRANSMIT, &[b"two"], &[]);
    let state = guest.pci.save();
    let DeviceState::Console(console) = &state.device else { panic!("{state:?}") };
    assert_eq!((console.columns, console.input.as_slice()), (80, &b"typed"[..]));
    let (device, _handle) = Console::restore(Box::new(kept.clone()), console);
    let mut again = guest.restored(Box::new(device), &state);
    assert_eq!(again.pci.save(), state);
    again.pci.resume();
    until(|| *lock(&kept.0) == b"onetwo");
    again.submit(RECEIVE, &[], &[16]);
    let used = again.wait(RECEIVE);
    assert_eq!(&used.data[..used.len as usize], b"typed");
}
