use proptest::prelude::*;

use super::*;
use crate::virtio::driver_test::Ring;

const BASE: Gpa = Gpa(0x10000);

fn small_ram() -> GuestMemory {
    GuestMemory::new(&[(Gpa(0), 1 << 20)]).unwrap()
}

fn queue(memory: &GuestMemory, ring: &Ring, features: u64) -> Queue {
    let layout = QueueLayout {
        size: ring.size,
        descriptors: ring.base,
        available: ring.available_ring(),
        used: ring.used_ring(),
    };
    Queue::new(memory.clone(), layout, QueueProgress::default(), features).unwrap()
}

fn setup(features: u64) -> (GuestMemory, Ring, Queue) {
    let memory = small_ram();
    let ring = Ring::new(BASE, 8, 0x1000);
    let queue = queue(&memory, &ring, features);
    (memory, ring, queue)
}

#[test]
fn buffers_go_round_and_round() {
    let (memory, mut ring, mut queue) = setup(0);
    assert_eq!(queue.pop().unwrap(), None);
    // More than the indices' 16 bits.
    for round in 0..70_000u32 {
        let head = ring.add(&memory, &[&round.to_le_bytes(), b"x"], &[2, 3]);
        let chain = queue.pop().unwrap().unwrap();
        assert_eq!(chain.head(), head);
        let mut reader = chain.reader(&memory);
        assert_eq!(reader.remaining(), 5);
        assert_eq!(reader.array(), Some(round.to_le_bytes()));
        assert_eq!(reader.array(), Some(*b"x"));
        assert_eq!(reader.array::<1>(), None);
        let mut writer = chain.writer(&memory);
        std::io::Write::write_all(&mut writer, b"hello").unwrap();
        let written = writer.written();
        queue.add_used(chain, written).unwrap();
        assert!(queue.publish().unwrap());
        let used = ring.take(&memory).unwrap();
        assert_eq!((used.head, used.len, used.data.as_slice()), (head, 5, &b"hello"[..]));
    }
}

#[test]
fn an_unpopped_buffer_comes_again() {
    let (memory, mut ring, mut queue) = setup(0);
    ring.add(&memory, &[b"a"], &[]);
    let chain = queue.pop().unwrap().unwrap();
    queue.unpop(chain.clone());
    assert_eq!(queue.pop().unwrap(), Some(chain));
    assert_eq!(queue.pop().unwrap(), None);
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let (memory, mut ring, mut queue) = setup(0);
    ring.add(&memory, &[b"a"], &[]);
    let chain = queue.pop().unwrap().unwrap();
    queue.add_used(chain, 0).unwrap();
    assert_eq!(ring.take(&memory), None);
    assert!(queue.publish().unwrap());
    assert!(!queue.publish().unwrap(), "nothing new");
    assert!(ring.take(&memory).is_some());
}

#[test]
fn interrupts_are_suppressed_by_flag_and_by_index() {
    let complete = |memory: &GuestMemory, ring: &mut Ring, queue: &mut Queue| {
        ring.add(memory, &[b"a"], &[]);
        let chain = queue.pop().unwrap().unwrap();
        queue.add_used(chain, 0).unwrap();
        queue.publish().unwrap()
    };
    let (memory, mut ring, mut queue) = setup(0);
    memory.write_u16(ring.available_ring(), AVAIL_NO_INTERRUPT).unwrap();
    assert!(!complete(&memory, &mut ring, &mut queue));

    let (memory, mut ring, mut queue) = setup(feature::EVENT_IDX);
    let event = Gpa(ring.available_ring().0 + 4 + 2 * 8);
    memory.write_u16(event, 2).unwrap();
    let wanted: Vec<bool> = (0..4).map(|_| complete(&memory, &mut ring, &mut queue)).collect();
    assert_eq!(wanted, [false, false, true, false]);
}

#[test]
fn notifications_are_asked_for_by_flag_and_by_index() {
    let (memory, mut ring, mut queue) = setup(0);
    queue.disable_notifications().unwrap();
    assert_eq!(memory.read_u16(ring.used_ring()).unwrap(), USED_NO_NOTIFY);
    ring.add(&memory, &[b"a"], &[]);
    assert!(queue.enable_notifications().unwrap(), "one came before");
    assert_eq!(memory.read_u16(ring.used_ring()).unwrap(), 0);
    queue.pop().unwrap();
    assert!(!queue.enable_notifications().unwrap());

    let (memory, mut ring, mut queue) = setup(feature::EVENT_IDX);
    ring.add(&memory, &[b"a"], &[]);
    queue.pop().unwrap();
    assert!(!queue.enable_notifications().unwrap());
    assert_eq!(memory.read_u16(Gpa(ring.used_ring().0 + 4 + 8 * 8)).unwrap(), 1);
}

#[test]
fn indirect_tables_are_followed_once() {
    let (memory, mut ring, mut queue) = setup(feature::INDIRECT_DESC);
    let table = Ring::new(Gpa(0x8000), 4, 0x100);
    table.write_descriptor(&memory, 0, Gpa(0x100), 3, DESC_NEXT, 1);
    table.write_descriptor(&memory, 1, Gpa(0x200), 5, DESC_WRITE, 0);
    // A normal descriptor, then the table (section 2.7.5.3.2).
    ring.write_descriptor(&memory, 0, Gpa(0x300), 1, DESC_NEXT, 1);
    ring.write_descriptor(&memory, 1, table.base, 32, DESC_INDIRECT, 0);
    ring.offer(&memory, 0);
    let chain = queue.pop().unwrap().unwrap();
    let lens = |segments: &[Segment]| segments.iter().map(|s| s.len).collect::<Vec<_>>();
    assert_eq!((lens(chain.readable()), lens(chain.writable())), (vec![1, 3], vec![5]));

    table.write_descriptor(&memory, 0, table.base, 16, DESC_INDIRECT, 0);
    ring.offer(&memory, 1);
    assert!(matches!(queue.pop(), Err(QueueError::BadIndirect)), "a table in a table");
}

#[test]
fn broken_chains_are_named() {
    /// Address, length, flags, next.
    type Raw = (u64, u32, u16, u16);
    type Check = fn(&QueueError) -> bool;
    let at = 0x100;
    let cases: [(Raw, Raw, Check); 9] = [
        ((at, 1, DESC_NEXT, 8), (0, 0, 0, 0), |e| matches!(e, QueueError::BadIndex { .. })),
        ((at, 1, DESC_NEXT, 0), (0, 0, 0, 0), |e| matches!(e, QueueError::ChainTooLong)),
        ((at, 1, DESC_NEXT, 1), (at, 1, DESC_NEXT, 0), |e| matches!(e, QueueError::ChainTooLong)),
        ((at, 1, DESC_NEXT | DESC_WRITE, 1), (at, 1, 0, 0), |e| {
            matches!(e, QueueError::ReadAfterWrite)
        }),
        ((1 << 20, 1, 0, 0), (0, 0, 0, 0), |e| matches!(e, QueueError::BadBuffer { .. })),
        ((u64::MAX, 2, 0, 0), (0, 0, 0, 0), |e| matches!(e, QueueError::BadBuffer { .. })),
        ((at, u32::MAX, 0, 0), (0, 0, 0, 0), |e| matches!(e, QueueError::BadBuffer { .. })),
        ((at, 16, DESC_INDIRECT | DESC_NEXT, 1), (at, 1, 0, 0), |e| {
            matches!(e, QueueError::BadIndirect)
        }),
        ((at, 17, DESC_INDIRECT, 0), (0, 0, 0, 0), |e| matches!(e, QueueError::BadIndirect)),
    ];
    for (first, second, expected) in cases {
        let (memory, mut ring, mut queue) = setup(feature::INDIRECT_DESC);
        for (index, (at, len, flags, next)) in (0..).zip([first, second]) {
            ring.write_descriptor(&memory, index, Gpa(at), len, flags, next);
        }
        ring.offer(&memory, 0);
        let error = queue.pop().unwrap_err();
        assert!(expected(&error), "{first:?} {second:?}: {error:?}");
    }
}

#[test]
fn rings_must_lie_in_ram_and_be_aligned() {
    let memory = small_ram();
    let good = QueueLayout {
        size: 256,
        descriptors: Gpa(0x1000),
        available: Gpa(0x3000),
        used: Gpa(0x4000),
    };
    let make = |layout| Queue::new(memory.clone(), layout, QueueProgress::default(), 0);
    assert!(make(good).is_ok());
    for bad in [
        QueueLayout { size: 0, ..good },
        QueueLayout { size: 3, ..good },
        QueueLayout { size: 0xffff, ..good },
        QueueLayout { descriptors: Gpa(0x1008), ..good },
        QueueLayout { available: Gpa(0x3001), ..good },
        QueueLayout { used: Gpa(0x4002), ..good },
        QueueLayout { used: Gpa((1 << 20) - 4), ..good },
        QueueLayout { descriptors: Gpa(!15), ..good },
    ] {
        assert!(make(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn too_many_available_buffers_are_an_error() {
    let (memory, ring, mut queue) = setup(0);
    memory.write_u16(Gpa(ring.available_ring().0 + 2), 9).unwrap();
    assert!(matches!(queue.pop(), Err(QueueError::TooManyAvailable { pending: 9, size: 8 })));
    assert!(queue.enable_notifications().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever bytes lie in the rings: no panic, no endless loop, and chains stay within bounds.
    #[test]
    fn hostile_rings_are_harmless(
        descriptors in proptest::collection::vec(
            // Mostly small numbers, so that chains get somewhere.
            (prop_oneof![0u64..0x2000, any::<u64>()], prop_oneof![0u32..64, any::<u32>()], 0u16..8, 0u16..10),
            32,
        ),
        heads in proptest::collection::vec(prop_oneof![0u16..8, any::<u16>()], 8),
        index in prop_oneof![0u16..=8, any::<u16>()],
        features in prop_oneof![Just(0), Just(feature::INDIRECT_DESC | feature::EVENT_IDX)],
    ) {
        let (memory, ring, mut queue) = setup(features);
        // The descriptor table, and again as an indirect table at addresses chains can reach.
        let low = Ring::new(Gpa(0), 32, 0x100);
        for (at, &(address, len, flags, next)) in (0..).zip(&descriptors) {
            low.write_descriptor(&memory, at, Gpa(address), len, flags, next);
            if at < 8 {
                ring.write_descriptor(&memory, at, Gpa(address), len, flags, next);
            }
        }
        for (slot, head) in (0..).zip(&heads) {
            memory.write_u16(Gpa(ring.available_ring().0 + 4 + 2 * slot), *head).unwrap();
        }
        memory.write_u16(Gpa(ring.available_ring().0 + 2), index).unwrap();
        for _ in 0..=8 {
            match queue.pop() {
                Ok(Some(chain)) => {
                    let segments = chain.readable().len() + chain.writable().len();
                    prop_assert!(segments <= usize::from(MAX_CHAIN));
                    let bytes = chain.reader(&memory).remaining() + chain.writer(&memory).remaining();
                    prop_assert!(bytes <= MAX_CHAIN_BYTES);
                    let mut copy = Vec::new();
                    std::io::Read::read_to_end(&mut chain.reader(&memory), &mut copy).unwrap();
                    queue.add_used(chain, 0).unwrap();
                }
                Ok(None) | Err(_) => break,
            }
        }
        queue.publish().unwrap();
    }
}
