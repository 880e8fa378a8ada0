use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::*;
use crate::MemDisk;

/// A disk that does not end with a whole cluster.
const SIZE: usize = 9 * CLUSTER + 512;

fn base() -> Arc<MemDisk> {
    let bytes = (0..SIZE).map(|i| (i / 7 + i / 1000) as u8 | 1).collect();
    Arc::new(MemDisk::from_bytes(bytes).unwrap().into_read_only())
}

fn bench() -> (tempfile::TempDir, Arc<MemDisk>, Overlay) {
    let (dir, base) = (tempfile::tempdir().unwrap(), base());
    let overlay = Overlay::new(base.clone(), dir.path()).unwrap();
    (dir, base, overlay)
}

fn all(disk: &dyn Disk) -> Vec<u8> {
    let mut buf = vec![0; SIZE];
    disk.read(0, &mut buf).unwrap();
    buf
}

#[test]
fn the_base_stays_and_nothing_is_left_behind() {
    let (dir, base, overlay) = bench();
    let before = base.to_bytes();
    assert_eq!(all(&overlay), before);
    overlay.write(5000, b"courtyard").unwrap();
    overlay.flush().unwrap();
    assert_eq!(overlay.written_bytes(), CLUSTER_SIZE);
    let mut buf = [0; 9];
    overlay.read(5000, &mut buf).unwrap();
    assert_eq!(&buf, b"courtyard");
    assert_eq!(base.to_bytes(), before);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn discarding_the_base_takes_no_space() {
    let (_dir, _, overlay) = bench();
    overlay.discard(0, 8 * CLUSTER_SIZE).unwrap();
    overlay.write_zeroes(8 * CLUSTER_SIZE, CLUSTER_SIZE).unwrap();
    assert!(all(&overlay)[..9 * CLUSTER].iter().all(|&byte| byte == 0));
    assert_eq!(overlay.delta.metadata().unwrap().blocks(), 0);
}

#[test]
fn refuses_what_is_out_of_range() {
    let (_dir, _, overlay) = bench();
    let size = SIZE as u64;
    for result in [
        overlay.read(size - 1, &mut [0; 2]),
        overlay.write(size - 1, &[0; 2]),
        overlay.write(u64::MAX, &[0; 2]),
        overlay.discard(1, size),
        overlay.write_zeroes(u64::MAX, u64::MAX),
    ] {
        assert!(matches!(result, Err(Error::OutOfRange { .. })));
    }
    overlay.write(size, &[]).unwrap();
}

#[test]
fn a_failed_write_loses_nothing() {
    let (_dir, base, mut overlay) = bench();
    overlay.delta = File::open("/dev/full").unwrap();
    assert!(matches!(overlay.write(100, &[1; 10_000]), Err(Error::Io { what: "write", .. })));
    assert_eq!(all(&overlay), base.to_bytes());
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    overlay.delta = full;
    let error = overlay.write(0, &[1; CLUSTER]).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_eq!(all(&overlay), base.to_bytes());
}

#[test]
fn a_restored_overlay_goes_on() {
    let (dir, base, overlay) = bench();
    overlay.write(4000, &[7; 9000]).unwrap();
    overlay.discard(3 * CLUSTER_SIZE, CLUSTER_SIZE).unwrap();
    overlay.write(SIZE as u64 - 3, b"end").unwrap();
    let delta = tempfile::tempfile_in(dir.path()).unwrap();
    let state = overlay.save(&delta).unwrap();
    assert_eq!(state.written, [0..4, 9..10]);
    let json = serde_json::to_string(&state).unwrap();
    let state: OverlayState = serde_json::from_str(&json).unwrap();
    let again = Overlay::restore(base.clone(), delta.try_clone().unwrap(), &state).unwrap();
    assert_eq!(all(&again), all(&overlay));
    again.write(0, b"begin").unwrap();
    assert_ne!(all(&again), all(&overlay));

    let restore = |change: fn(&mut OverlayState)| {
        let mut state = state.clone();
        change(&mut state);
        Overlay::restore(base.clone(), delta.try_clone().unwrap(), &state)
    };
    for result in [
        restore(|state| state.size += 512),
        restore(|state| state.cluster_size = 512),
        restore(|state| state.written.push(10..11)),
        restore(|state| state.written.push(Range { start: 5, end: 4 })),
    ] {
        assert!(matches!(result, Err(Error::BadState { .. })));
    }
}

#[test]
fn threads_write_side_by_side() {
    let (_dir, base, overlay) = bench();
    // Each thread owns every fourth 100 bytes: all of them meet in all clusters.
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let overlay = &overlay;
            scope.spawn(move || {
                for at in (usize::from(thread) * 100..SIZE - 100).step_by(400) {
                    overlay.write(at as u64, &[thread * 2; 100]).unwrap();
                }
            });
        }
    });
    let mut expected = base.to_bytes();
    for at in (0..SIZE - 100).step_by(100) {
        expected[at..at + 100].fill((at / 100 % 4 * 2) as u8);
    }
    assert_eq!(all(&overlay), expected);
}

#[derive(Debug, Clone)]
enum Step {
    Read(usize, usize),
    Write(usize, usize, u8),
    Discard(usize, usize),
    Zero(usize, usize),
    SaveAndRestore,
}

fn range() -> impl Strategy<Value = (usize, usize)> {
    let any = (0..=SIZE, 0..=SIZE).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let clusters = (0usize..10, 0usize..10)
        .prop_map(|(a, b)| (a.min(b) * CLUSTER, (a.max(b) * CLUSTER).min(SIZE)));
    let short = (0..=SIZE, 0usize..600).prop_map(|(a, len)| (a, (a + len).min(SIZE)));
    prop_oneof![any, clusters, short]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => range().prop_map(|(a, b)| Step::Read(a, b)),
        4 => (range(), any::<u8>()).prop_map(|((a, b), byte)| Step::Write(a, b, byte)),
        1 => range().prop_map(|(a, b)| Step::Discard(a, b)),
        1 => range().prop_map(|(a, b)| Step::Zero(a, b)),
        1 => Just(Step::SaveAndRestore),
    ]
}

proptest! {
    #[test]
    fn behaves_as_a_list_of_bytes(steps in prop::collection::vec(step(), 1..30)) {
        let (dir, base, mut overlay) = bench();
        let mut model = base.to_bytes();
        let before = model.clone();
        for step in steps {
            match step {
                Step::Read(a, b) => {
                    let mut buf = vec![0xaa; b - a];
                    overlay.read(a as u64, &mut buf).unwrap();
                    prop_assert!(buf == model[a..b]);
                }
                Step::Write(a, b, byte) => {
                    overlay.write(a as u64, &vec![byte; b - a]).unwrap();
                    model[a..b].fill(byte);
                }
                Step::Discard(a, b) => {
                    overlay.discard(a as u64, (b - a) as u64).unwrap();
                    model[a..b].fill(0);
                }
                Step::Zero(a, b) => {
                    overlay.write_zeroes(a as u64, (b - a) as u64).unwrap();
                    model[a..b].fill(0);
                }
                Step::SaveAndRestore => {
                    let delta = tempfile::tempfile_in(dir.path()).unwrap();
                    let state = overlay.save(&delta).unwrap();
                    overlay = Overlay::restore(base.clone(), delta, &state).unwrap();
                }
            }
        }
        prop_assert!(all(&overlay) == model);
        prop_assert!(base.to_bytes() == before);
    }
}
