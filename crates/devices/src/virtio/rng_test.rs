use super::*;
use crate::virtio::driver_test::{Choices, Guest};

/// Counts up.
#[derive(Debug, Default)]
struct Counter(u8);

impl Entropy for Counter {
    fn fill(&mut self, buf: &mut [u8]) -> io::Result<()> {
        for byte in buf {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

#[test]
fn buffers_are_filled() {
    for features in [u64::MAX, 0] {
        let device = Rng::new(Box::<Counter>::default());
        let mut guest = Guest::new(Box::new(device), Choices { features, ..Choices::default() });
        for round in 0..100u32 {
            guest.submit(0, &[], &[4, 4]);
            let used = guest.wait(0);
            let expected: Vec<u8> = (0..8).map(|n| (8 * round + n) as u8).collect();
            assert_eq!((used.len, used.data), (8, expected));
        }
        assert!(guest.messages.count(0) > 0);
    }
}

#[test]
fn the_host_gives_randomness() {
    let mut guest = Guest::new(Box::new(Rng::new(Box::new(HostEntropy))), Choices::default());
    guest.submit(0, &[], &[0x10000]);
    let used = guest.wait(0);
    assert_eq!(used.len, 0x10000);
    assert!(used.data.chunks(16).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
}

#[test]
fn a_request_is_bounded_and_an_odd_one_is_harmless() {
    let mut guest =
        Guest::new(Box::<Rng>::new(Rng::new(Box::<Counter>::default())), Choices::default());
    guest.submit(0, &[], &[0x11000]);
    assert_eq!(guest.wait(0).len, 0x10000);
    guest.submit(0, &[b"readable only"], &[]);
    assert_eq!(guest.wait(0).len, 0);
}

#[test]
fn a_failing_source_gives_nothing() {
    #[derive(Debug)]
    struct Empty;
    impl Entropy for Empty {
        fn fill(&mut self, _buf: &mut [u8]) -> io::Result<()> {
            Err(io::ErrorKind::Other.into())
        }
    }
    let mut guest = Guest::new(Box::new(Rng::new(Box::new(Empty))), Choices::default());
    guest.submit(0, &[], &[16]);
    assert_eq!(guest.wait(0).len, 0);
}

#[test]
fn saved_and_restored_it_goes_on() {
    let mut guest = Guest::new(Box::new(Rng::new(Box::<Counter>::default())), Choices::default());
    guest.submit(0, &[], &[4]);
    guest.wait(0);
    guest.pci.pause();
    guest.submit(0, &[], &[4]);
    let state = guest.pci.save();
    let DeviceState::Rng(device) = &state.device else { panic!("{state:?}") };
    let device = Rng::restore(Box::new(Counter(100)), device);
    let mut again = guest.restored(Box::new(device), &state);
    assert_eq!(again.pci.save(), state);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(again.poll(0), None, "a restored device waits");
    again.pci.resume();
    assert_eq!(again.wait(0).data, [100, 101, 102, 103]);
}
