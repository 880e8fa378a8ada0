use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::MemDisk;

const CLUSTER: usize = CLUSTER_SIZE as usize;
/// Not a whole cluster, as bases may be.
const BASE: usize = 5 * CLUSTER + 512;
const SIZE: usize = 9 * CLUSTER;

fn base() -> Arc<MemDisk> {
    let bytes = (0..BASE).map(|i| (i / 7 + i / 1000) as u8 | 1).collect();
    Arc::new(MemDisk::from_bytes(bytes).unwrap().into_read_only())
}

struct Bench {
    dir: tempfile::TempDir,
    path: PathBuf,
    base: Arc<MemDisk>,
}

fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    Layer::create(&path, BASE as u64, SIZE as u64).unwrap();
    Bench { dir, path, base: base() }
}

impl Bench {
    fn open(&self) -> Layer {
        Layer::open(&self.path, self.base.clone()).unwrap()
    }

    fn expected(&self) -> Vec<u8> {
        let mut bytes = self.base.to_bytes();
        bytes.resize(SIZE, 0);
        bytes
    }
}

fn all(disk: &dyn Disk) -> Vec<u8> {
    let mut buf = vec![0; usize::try_from(disk.size()).unwrap()];
    disk.read(0, &mut buf).unwrap();
    buf
}

#[test]
fn what_was_flushed_is_there_again() {
    let bench = bench();
    let mut expected = bench.expected();
    let layer = bench.open();
    assert_eq!(all(&layer), expected);
    layer.write(BASE as u64 - 100, &[7; 300]).unwrap();
    layer.discard(0, CLUSTER_SIZE).unwrap();
    layer.flush().unwrap();
    expected[BASE - 100..BASE + 200].fill(7);
    expected[..CLUSTER].fill(0);
    // As after kill -9: nothing is done at the end.
    drop(layer);
    assert_eq!(all(&bench.open()), expected);
}

#[test]
fn what_was_not_flushed_is_the_bases_and_is_written_over() {
    let bench = bench();
    let mut expected = bench.expected();
    let layer = bench.open();
    layer.write(4096, &[9; CLUSTER]).unwrap();
    drop(layer);
    let layer = bench.open();
    assert_eq!(all(&layer), expected);
    // The cluster that no bit speaks of holds old bytes; a partial write must not show them.
    layer.write(4100, &[1; 4]).unwrap();
    layer.flush().unwrap();
    drop(layer);
    expected[4100..4104].fill(1);
    assert_eq!(all(&bench.open()), expected);
}

#[test]
fn bits_come_after_their_data() {
    let bench = bench();
    let layer = bench.open();
    layer.write(0, &[1; 10]).unwrap();
    let map = |bench: &Bench| {
        let mut page = vec![0; PAGE_BYTES];
        File::open(&bench.path).unwrap().read_exact_at(&mut page, MAP).unwrap();
        page[0]
    };
    assert_eq!(map(&bench), 0, "no bit before the flush");
    layer.flush().unwrap();
    assert_eq!(map(&bench), 1);
}

#[test]
fn two_writers_are_told_apart() {
    let bench = bench();
    let _layer = bench.open();
    let error = Layer::open(&bench.path, bench.base.clone()).unwrap_err();
    assert!(matches!(error, Error::InUse(_)), "{error}");
    assert!(matches!(Layer::grow(&bench.path, 1 << 20), Err(Error::InUse(_))));
    assert_eq!(Layer::info(&bench.path).unwrap().size, SIZE as u64);
}

#[test]
fn disks_grow_and_never_shrink() {
    let bench = bench();
    let layer = bench.open();
    layer.write(SIZE as u64 - 3, b"end").unwrap();
    layer.flush().unwrap();
    drop(layer);
    Layer::grow(&bench.path, 1 << 20).unwrap();
    let mut expected = bench.expected();
    expected[SIZE - 3..].copy_from_slice(b"end");
    expected.resize(1 << 20, 0);
    let layer = bench.open();
    assert_eq!(all(&layer), expected);
    layer.write((1 << 20) - 1, b"!").unwrap();
    drop(layer);
    for size in [SIZE as u64, (1 << 20) + 1, Layer::MOST + CLUSTER_SIZE] {
        let error = Layer::grow(&bench.path, size).unwrap_err();
        assert!(matches!(error, Error::BadLayer { .. }), "{error}");
    }
}

#[test]
fn files_that_are_none_are_refused() {
    let bench = bench();
    let damage = |at: u64, bytes: &[u8]| {
        let path = bench.dir.path().join("damaged");
        std::fs::copy(&bench.path, &path).unwrap();
        File::options().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
        let error = Layer::open(&path, bench.base.clone()).unwrap_err();
        std::fs::remove_file(&path).unwrap();
        error.to_string()
    };
    assert!(damage(0, b"X").contains("no disk layer"));
    assert!(damage(16, &[2]).contains("newer Riad"));
    assert!(damage(20, &[0; 4]).contains("damaged"));
    assert!(damage(24, &[1]).contains("damaged"));
    assert!(damage(24, &(1u64 << 40).to_le_bytes()).contains("cut short"));
    assert!(damage(32, &512u64.to_le_bytes()).contains("base of 512 bytes"));
    assert!(damage(48, &[1]).contains("damaged"));
    let short = bench.dir.path().join("short");
    std::fs::write(&short, "x").unwrap();
    assert!(Layer::info(&short).unwrap_err().to_string().contains("too short"));
}

#[test]
fn a_flush_that_fails_is_made_up_for() {
    let bench = bench();
    let mut layer = bench.open();
    layer.write(0, &[1; 10]).unwrap();
    let file = std::mem::replace(&mut layer.file, File::open("/dev/null").unwrap());
    assert!(layer.flush().is_err());
    layer.file = file;
    layer.flush().unwrap();
    drop(layer);
    assert_eq!(all(&bench.open())[..10], [1; 10]);
}

#[test]
fn discarded_space_is_given_back() {
    let bench = bench();
    let layer = bench.open();
    layer.write(0, &[1; 8 * CLUSTER]).unwrap();
    layer.flush().unwrap();
    let blocks = || std::fs::metadata(&bench.path).unwrap().blocks();
    let before = blocks();
    layer.discard(0, 8 * CLUSTER_SIZE).unwrap();
    layer.flush().unwrap();
    assert!(blocks() + 8 * 8 <= before, "{} of {before}", blocks());
}

#[test]
fn a_copy_is_the_same_disk_and_takes_no_more_space() {
    let bench = bench();
    let layer = bench.open();
    layer.write(4096, &[3; 5000]).unwrap();
    layer.flush().unwrap();
    let expected = all(&layer);
    drop(layer);
    let copy = bench.dir.path().join("copy");
    crate::copy_sparse(&bench.path, &copy).unwrap();
    let blocks = |path: &Path| std::fs::metadata(path).unwrap().blocks();
    assert!(blocks(&copy) <= blocks(&bench.path) + 16);
    assert_eq!(all(&Layer::open(&copy, bench.base.clone()).unwrap()), expected);
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize, usize, u8),
    Zero(usize, usize),
    Flush,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..=SIZE, 0..=SIZE).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![
        4 => (range(), any::<u8>()).prop_map(|((a, b), byte)| Step::Write(a, b, byte)),
        2 => range().prop_map(|(a, b)| Step::Zero(a, b)),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every byte is what was last written, or, after the process died, some value that it had since
    /// the last flush.
    #[test]
    fn flushed_bytes_survive_and_others_are_never_invented(
        steps in prop::collection::vec(step(), 1..25)
    ) {
        let bench = bench();
        let mut layer = bench.open();
        let mut model = bench.expected();
        // For each byte, the values it may have after a crash.
        let mut possible: Vec<Vec<u8>> = model.iter().map(|byte| vec![*byte]).collect();
        for step in steps {
            match step {
                Step::Write(a, b, byte) => {
                    layer.write(a as u64, &vec![byte; b - a]).unwrap();
                    model[a..b].fill(byte);
                    possible[a..b].iter_mut().for_each(|values| values.push(byte));
                }
                Step::Zero(a, b) => {
                    layer.discard(a as u64, (b - a) as u64).unwrap();
                    model[a..b].fill(0);
                    possible[a..b].iter_mut().for_each(|values| values.push(0));
                }
                Step::Flush => {
                    layer.flush().unwrap();
                    for (values, byte) in possible.iter_mut().zip(&model) {
                        *values = vec![*byte];
                    }
                }
                Step::Reopen => {
                    drop(layer);
                    layer = bench.open();
                    model = all(&layer);
                    for (values, byte) in possible.iter_mut().zip(&model) {
                        prop_assert!(values.contains(byte));
                        *values = vec![*byte];
                    }
                }
            }
            prop_assert!(all(&layer) == model);
        }
    }
}

#[test]
fn a_disk_grows_while_it_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layer");
    let base = || Arc::new(MemDisk::new(1 << 20).unwrap());
    Layer::create(&path, 1 << 20, 2 << 20).unwrap();
    let layer = Layer::open(&path, base()).unwrap();
    layer.write((2 << 20) - 4096, &[7; 4096]).unwrap();
    assert!(layer.write(2 << 20, &[1; 512]).is_err());
    layer.grow_in_use(512 << 20).unwrap();
    assert_eq!(layer.size(), 512 << 20);
    let mut read = [9; 4096];
    layer.read((512 << 20) - 4096, &mut read).unwrap();
    assert_eq!(read, [0; 4096]);
    layer.write((512 << 20) - 8192, &[8; 4096]).unwrap();
    layer.flush().unwrap();
    let error = layer.grow_in_use(1 << 20).unwrap_err().to_string();
    assert!(error.contains("disks only grow"), "{error}");
    drop(layer);
    assert_eq!(Layer::info(&path).unwrap().size, 512 << 20);
    let layer = Layer::open(&path, base()).unwrap();
    for (at, byte) in [((2 << 20) - 4096, 7), ((512 << 20) - 8192, 8), (3 << 20, 0)] {
        layer.read(at, &mut read).unwrap();
        assert_eq!(read, [byte; 4096], "{at}");
    }
}
