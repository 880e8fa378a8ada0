use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::*;

struct Count {
    turns: Arc<AtomicU64>,
}

impl Task for Count {
    fn turn(&mut self, _control: &Control) {
        self.turns.fetch_add(1, Ordering::SeqCst);
    }
}

fn until(turns: &AtomicU64, at_least: u64) {
    while turns.load(Ordering::SeqCst) < at_least {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn kicks_make_turns() {
    let turns = Arc::new(AtomicU64::new(0));
    let worker =
        Worker::spawn(Kind::Device, "count", Count { turns: turns.clone() }, false).unwrap();
    until(&turns, 1);
    worker.control().bell().ring();
    until(&turns, 2);
    assert!(worker.stop().is_some());
}

#[test]
fn held_workers_do_nothing() {
    let turns = Arc::new(AtomicU64::new(0));
    let worker =
        Worker::spawn(Kind::Device, "count", Count { turns: turns.clone() }, true).unwrap();
    worker.control().pause();
    worker.control().bell().ring();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(turns.load(Ordering::SeqCst), 0);
    worker.control().resume();
    until(&turns, 1);
    worker.control().pause();
    let now = turns.load(Ordering::SeqCst);
    worker.control().bell().ring();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(turns.load(Ordering::SeqCst), now);
    drop(worker);
}

#[test]
fn a_pause_right_after_a_resume_still_holds() {
    let turns = Arc::new(AtomicU64::new(0));
    let worker =
        Worker::spawn(Kind::Device, "count", Count { turns: turns.clone() }, false).unwrap();
    for _ in 0..200 {
        worker.control().pause();
        let now = turns.load(Ordering::SeqCst);
        std::thread::yield_now();
        assert_eq!(turns.load(Ordering::SeqCst), now);
        worker.control().resume();
    }
}

#[test]
fn a_panicking_task_does_not_hang_its_device() {
    struct Bad(Arc<AtomicU64>);
    impl Task for Bad {
        fn turn(&mut self, _control: &Control) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("a bug, on purpose");
        }
    }
    let turns = Arc::new(AtomicU64::new(0));
    let worker = Worker::spawn(Kind::Device, "bad", Bad(turns.clone()), false).unwrap();
    until(&turns, 1);
    worker.control().pause();
    assert!(worker.stop().is_none());
}
