//! Memory that is gathered holds what it held.

use super::*;
use crate::{Gpa, PAGE_SIZE};

const STRETCH: u64 = HUGE_PAGE as u64;

fn memory() -> GuestMemory {
    GuestMemory::new(&[(Gpa(0), 2 * STRETCH + PAGE_SIZE)]).expect("some memory")
}

#[test]
fn a_stretch_is_due_once_when_an_eighth_of_it_was_written_to() {
    let memory = memory();
    for page in 0..u64::from(DENSE) - 1 {
        memory.write(Gpa(STRETCH + page * PAGE_SIZE), &[1]).expect("within");
        memory.write(Gpa(STRETCH + page * PAGE_SIZE), &[2]).expect("within");
    }
    assert!(memory.stretches().due().stretches.is_empty());
    for page in u64::from(DENSE) - 1..PAGES as u64 {
        memory.write(Gpa(STRETCH + page * PAGE_SIZE), &[1]).expect("within");
    }
    assert_eq!(memory.stretches().due().stretches, [1]);
    // What is no whole stretch is nobody's.
    memory.write(Gpa(2 * STRETCH), &[1]).expect("within");
}

#[test]
fn gathered_memory_holds_what_it_held_and_takes_what_is_written_meanwhile() {
    let memory = memory();
    let gatherer = Gatherer::new(&memory);
    // Runs of the gatherer and these writes meet in both stretches.
    for round in 0..4u64 {
        for page in 0..2 * PAGES as u64 {
            memory.write_u64(Gpa(page * PAGE_SIZE + 8 * round), page << 8 | round).expect("within");
        }
    }
    // Once more, whether the thread came to it or not.
    memory.gather(0);
    memory.gather(HUGE_PAGE);
    for round in 0..4u64 {
        for page in 0..2 * PAGES as u64 {
            let at = Gpa(page * PAGE_SIZE + 8 * round);
            assert_eq!(memory.read_u64(at).expect("within"), page << 8 | round);
        }
    }
    drop(gatherer);
}

#[test]
fn what_lies_outside_is_not_gathered() {
    let memory = memory();
    assert!(memory.gather(2 * HUGE_PAGE), "not a whole stretch: left as it is");
    assert!(memory.gather(64 * HUGE_PAGE));
}
