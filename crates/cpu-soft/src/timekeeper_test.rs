use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use riad_clock::{Clock, HostClock, ManualClock, Nanos};

use super::Timekeeper;

const MS: Nanos = 1_000_000;
/// Longer than any test waits for what is to happen.
const FAR: Nanos = 600_000 * MS;
/// Long enough for whatever is to happen, on a host that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long tests watch that something does not happen.
const WATCH: Duration = Duration::from_millis(100);

/// The host's clock, and how often the thread asked it how long to wait.
#[derive(Debug, Default)]
struct Counting {
    clock: HostClock,
    asked: AtomicU64,
}

impl Counting {
    fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until the thread sleeps: how often it has asked by then.
    fn settled(&self) -> u64 {
        loop {
            let asked = self.asked();
            thread::sleep(Duration::from_millis(20));
            if asked > 1 && self.asked() == asked {
                return asked;
            }
        }
    }
}

impl Clock for Counting {
    fn now(&self) -> Nanos {
        self.clock.now()
    }

    fn wall(&self) -> u64 {
        self.clock.wall()
    }

    fn wait_for(&self, at: Nanos) -> Option<u64> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.clock.wait_for(at)
    }
}

/// A timekeeper, its clock, and each expiry with the time at which it was told.
fn keeper() -> (Timekeeper, Arc<Counting>, Receiver<(u32, Nanos)>) {
    let clock = Arc::new(Counting::default());
    let (sender, expired) = channel();
    let by = Arc::clone(&clock);
    let tell = move |processor| sender.send((processor, by.now())).unwrap_or_default();
    (Timekeeper::new(clock.clone(), Box::new(tell)), clock, expired)
}

#[test]
fn deadlines_expire_in_their_order_once_and_not_before() {
    let (keeper, clock, expired) = keeper();
    let now = clock.now();
    let due = [now + 60 * MS, now + 20 * MS, now + 40 * MS];
    for (processor, due) in due.iter().enumerate() {
        keeper.arm(processor as u32, Some(*due));
    }
    for processor in [1, 2, 0] {
        let (which, at) = expired.recv_timeout(PATIENCE).unwrap();
        assert_eq!(which, processor);
        assert!(at >= due[which as usize], "told {at} of {}", due[which as usize]);
    }
    assert_eq!(expired.recv_timeout(WATCH), Err(RecvTimeoutError::Timeout));
}

#[test]
fn a_deadline_that_has_passed_expires_at_once() {
    let (keeper, _clock, expired) = keeper();
    keeper.arm(3, Some(0));
    assert_eq!(expired.recv_timeout(PATIENCE).unwrap().0, 3);
    keeper.arm(3, Some(0));
    assert_eq!(expired.recv_timeout(PATIENCE).unwrap().0, 3, "and again when armed again");
}

#[test]
fn an_earlier_deadline_wakes_the_thread() {
    let (keeper, clock, expired) = keeper();
    keeper.arm(0, Some(FAR));
    clock.settled();
    keeper.arm(1, Some(clock.now() + MS));
    assert_eq!(expired.recv_timeout(PATIENCE).unwrap().0, 1);
    clock.settled();
    keeper.arm(0, Some(clock.now() + MS));
    assert_eq!(expired.recv_timeout(PATIENCE).unwrap().0, 0, "its own, moved forward");
}

#[test]
fn later_deadlines_neither_wake_the_thread_nor_delay_the_earliest() {
    let (keeper, clock, expired) = keeper();
    keeper.arm(0, Some(FAR));
    let asked = clock.settled();
    for later in 0..1000 {
        keeper.arm(1, Some(FAR + later));
        keeper.arm(0, Some(FAR + later));
    }
    thread::sleep(WATCH);
    assert_eq!(clock.asked(), asked, "the thread was woken");
    keeper.arm(2, Some(clock.now() + 20 * MS));
    keeper.arm(1, Some(FAR));
    assert_eq!(expired.recv_timeout(PATIENCE).unwrap().0, 2);
}

#[test]
fn a_deadline_put_off_again_and_again_expires_when_it_says_last() {
    let (keeper, clock, expired) = keeper();
    let mut due = 0;
    for _ in 0..20 {
        due = clock.now() + 50 * MS;
        keeper.arm(0, Some(due));
        thread::sleep(Duration::from_millis(5));
    }
    // A host that was busy for all of 50 ms may have let an earlier one pass.
    while expired.recv_timeout(PATIENCE).unwrap().1 < due {}
}

#[test]
fn what_is_disarmed_does_not_expire() {
    let (keeper, clock, expired) = keeper();
    keeper.arm(0, Some(FAR));
    keeper.arm(1, Some(FAR));
    clock.settled();
    keeper.arm(1, None);
    keeper.arm(0, None);
    keeper.arm(5, None);
    assert_eq!(expired.recv_timeout(WATCH), Err(RecvTimeoutError::Timeout));
    keeper.arm(1, Some(clock.now() + MS));
    assert_eq!(expired.recv_timeout(PATIENCE).unwrap().0, 1, "the thread is still there");
}

#[test]
fn a_pause_is_waited_for_without_spinning() {
    let (keeper, clock, expired) = keeper();
    clock.clock.pause();
    keeper.arm(0, Some(clock.now() + MS / 10));
    let pause = Duration::from_millis(200);
    assert_eq!(expired.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
    // 0.1, 0.2, ... 10 ms, and from there on 10 ms each.
    let asked = clock.asked();
    assert!(asked < 60, "the thread looked {asked} times");
    clock.clock.resume();
    assert_eq!(expired.recv_timeout(PATIENCE).unwrap().0, 0);
}

#[test]
fn dropping_it_ends_its_thread() {
    let (keeper, clock, expired) = keeper();
    keeper.arm(0, Some(FAR));
    clock.settled();
    drop(keeper);
    // The thread held the clock and the closure, and the closure the sender.
    assert_eq!(Arc::strong_count(&clock), 1);
    assert_eq!(expired.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn there_is_no_thread_before_there_is_a_deadline() {
    let (keeper, clock, _expired) = keeper();
    keeper.arm(0, None);
    assert!(keeper.shared.state().thread.is_none());
    drop(keeper);
    assert_eq!(Arc::strong_count(&clock), 1);
}

#[test]
fn a_clock_that_does_not_move_by_waiting_is_not_waited_for() {
    let clock = Arc::new(ManualClock::new(0));
    let (sender, expired) = channel();
    let keeper =
        Timekeeper::new(clock.clone(), Box::new(move |cpu| sender.send(cpu).unwrap_or_default()));
    clock.advance(10);
    keeper.arm(0, Some(5));
    keeper.arm(1, Some(500));
    assert_eq!(expired.recv_timeout(WATCH), Err(RecvTimeoutError::Timeout));
    assert!(keeper.shared.state().thread.is_none());
}

#[test]
fn whoever_is_told_may_arm_again() {
    let clock = Arc::new(HostClock::new());
    let (sender, expired) = channel();
    let tell = move |cpu| sender.send(cpu).unwrap_or_default();
    let keeper = Arc::new(Timekeeper::new(clock.clone(), Box::new(tell)));
    thread::scope(|scope| {
        let keeper = Arc::clone(&keeper);
        scope.spawn(move || {
            for _ in 0..20 {
                keeper.arm(0, Some(clock.now() + MS / 5));
                expired.recv_timeout(PATIENCE).unwrap();
            }
        });
    });
}
