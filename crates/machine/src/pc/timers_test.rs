use std::sync::Arc;
use std::time::Instant;

use riad_clock::{Clock, HostClock, ManualClock};

use super::*;

/// Counts its calls; wants to be called at `next`.
struct Alarm {
    clock: SharedClock,
    next: Option<Nanos>,
    period: Option<Nanos>,
    calls: u32,
}

impl TimedDevice for Alarm {
    fn next_deadline(&self) -> Option<Nanos> {
        self.next
    }

    fn expire(&mut self) {
        if self.next.is_some_and(|at| at <= self.clock.now()) {
            self.calls += 1;
            self.next = self.period.map(|period| self.clock.now() + period);
        }
    }
}

fn alarm(clock: &SharedClock, next: Option<Nanos>, period: Option<Nanos>) -> Shared<Alarm> {
    Arc::new(Mutex::new(Alarm { clock: Arc::clone(clock), next, period, calls: 0 }))
}

#[test]
fn devices_are_called_when_due_and_not_while_paused() {
    let manual = Arc::new(ManualClock::new(0));
    let clock: SharedClock = Arc::<ManualClock>::clone(&manual);
    let (early, late) = (alarm(&clock, Some(10), None), alarm(&clock, Some(20), Some(5)));
    let mut timers = Timers::new(clock);
    timers.add(Arc::<Mutex<Alarm>>::clone(&early));
    timers.add(Arc::<Mutex<Alarm>>::clone(&late));
    let calls = || (lock(&early).calls, lock(&late).calls);
    manual.advance_to(15);
    assert_eq!(timers.expire_due(), Some(10), "paused");
    timers.resume();
    assert_eq!(timers.expire_due(), Some(20));
    assert_eq!(calls(), (1, 0));
    manual.advance_to(20);
    assert_eq!(timers.expire_due(), Some(25));
    assert_eq!(calls(), (1, 1));
    timers.pause();
    manual.advance_to(30);
    timers.expire_due();
    assert_eq!(calls(), (1, 1));
}

#[test]
fn an_access_that_sets_a_timer_wakes_the_thread() {
    let host = Arc::new(HostClock::new());
    let clock: SharedClock = Arc::<HostClock>::clone(&host);
    let device = alarm(&clock, None, None);
    let mut timers = Timers::new(clock);
    let id = timers.add(Arc::<Mutex<Alarm>>::clone(&device));
    let timers = Arc::new(timers);
    timers.resume();
    let thread = std::thread::spawn({
        let timers = Arc::clone(&timers);
        move || timers.run()
    });
    lock(&device).next = Some(host.now() + 1_000_000);
    timers.touched(id);
    let begin = Instant::now();
    while lock(&device).calls == 0 {
        assert!(begin.elapsed() < Duration::from_secs(10), "never called");
        std::thread::yield_now();
    }
    timers.stop();
    thread.join().unwrap();
    timers.resume();
    timers.run();
}
