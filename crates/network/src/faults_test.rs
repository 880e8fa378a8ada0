use super::*;

/// A link that gives back what it is sent.
#[derive(Default)]
struct Mirror(VecDeque<Vec<u8>>);

impl Link for Mirror {
    fn send(&mut self, _: &Offload, frame: &[u8]) {
        self.0.push_back(frame.to_vec());
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<(Offload, usize)> {
        let next = self.0.pop_front()?;
        frame[..next.len()].copy_from_slice(&next);
        Some((Offload::default(), next.len()))
    }

    fn mtu(&self) -> u16 {
        1500
    }

    fn mac(&self) -> Mac {
        [2, 0, 0, 0, 0, 1]
    }
}

/// Sends 1,000 numbered frames of 100 bytes, one a millisecond; when which came back.
fn round(seed: u64, faults: Faults) -> Vec<(u64, u64)> {
    let (mut link, control) = Faulty::new(Mirror::default(), seed);
    control.set(faults);
    let mut buffer = vec![0; MAX_FRAME];
    let mut back = Vec::new();
    for time in 0..5000u64 {
        link.turn(Duration::from_millis(time));
        if time < 1000 {
            let mut frame = [0; 100];
            frame[..8].copy_from_slice(&time.to_le_bytes());
            link.send(&Offload::default(), &frame);
        }
        while let Some((_, len)) = link.receive(&mut buffer) {
            assert_eq!(len, 100);
            back.push((u64::from_le_bytes(buffer[..8].try_into().unwrap()), time));
        }
        assert!(link.deadline().is_none_or(|at| at > Duration::from_millis(time)));
    }
    back
}

#[test]
fn without_faults_it_is_not_in_the_way() {
    let back = round(1, Faults::default());
    assert!(back.iter().all(|(sent, came)| sent == came) && back.len() == 1000);
}

#[test]
fn frames_are_delayed_and_keep_their_order() {
    let ms = Duration::from_millis;
    let back = round(1, Faults { delay: ms(50), jitter: ms(20), ..Faults::default() });
    assert_eq!(back.len(), 1000);
    assert!(back.windows(2).all(|pair| pair[0].0 < pair[1].0));
    // Both ways.
    assert!(back.iter().all(|(sent, came)| (100..=142).contains(&(came - sent))));
}

#[test]
fn frames_are_lost_as_often_as_asked_and_the_same_ones_each_time() {
    let faults = Faults { loss: 100_000, ..Faults::default() };
    let back = round(7, faults);
    // 0.9 * 0.9 of a thousand.
    assert!((750..870).contains(&back.len()), "{}", back.len());
    assert_eq!(back, round(7, faults));
    assert_ne!(back, round(8, faults));
    assert!(round(7, Faults { cut: true, ..Faults::default() }).is_empty());
}

#[test]
fn a_rate_is_kept_to() {
    // A hundred bytes a millisecond are sent, and half of that goes through.
    let back = round(1, Faults { rate: 50_000, ..Faults::default() });
    assert_eq!(back.len(), 1000);
    let (first, last) = (back[0].1, back[999].1);
    assert!((1990..=2010).contains(&(last - first)), "{first} {last}");
}

#[test]
fn what_is_on_its_way_is_bounded() {
    let (mut link, control) = Faulty::new(Mirror::default(), 1);
    control.set(Faults { delay: Duration::from_secs(9), ..Faults::default() });
    for _ in 0..1000 {
        link.send(&Offload::default(), &[0; 60_000]);
    }
    assert!(link.out.bytes <= MOST_BYTES && link.out.flying.len() > 100);
}

#[test]
fn what_changes_holds_for_what_is_on_its_way() {
    let ms = Duration::from_millis;
    let mut buffer = vec![0; MAX_FRAME];
    for (cut, expected) in [(false, 5), (true, 0)] {
        let (mut link, control) = Faulty::new(Mirror::default(), 1);
        control.set(Faults { rate: 1, ..Faults::default() });
        link.turn(ms(1));
        for _ in 0..5 {
            link.send(&Offload::default(), &[0; 1000]);
        }
        // It is looked again soon, and not when the frame is due.
        assert!(link.deadline().unwrap() <= ms(1) + LOOK);
        link.turn(ms(1));
        control.set(Faults { cut, ..Faults::default() });
        link.turn(ms(2));
        let came = std::iter::from_fn(|| link.receive(&mut buffer)).count();
        assert_eq!(came, expected);
        control.set(Faults::default());
        link.turn(ms(3));
        link.send(&Offload::default(), &[0; 1000]);
        assert!(link.receive(&mut buffer).is_some() && link.deadline().is_none());
    }
}

#[test]
fn what_is_late_leaves_when_it_is_due() {
    let ms = Duration::from_millis;
    let (mut link, control) = Faulty::new(Mirror::default(), 1);
    control.set(Faults { delay: ms(50), ..Faults::default() });
    link.turn(ms(1000));
    link.send(&Offload::default(), &[0; 100]);
    link.turn(ms(1049));
    assert!(link.link.0.is_empty());
    link.turn(ms(1050));
    assert_eq!(link.link.0.len(), 1);
    // Without a delay it does not wait for the next turn.
    control.set(Faults { loss: 1, ..Faults::default() });
    link.send(&Offload::default(), &[0; 100]);
    assert_eq!(link.link.0.len(), 2);
}
