use std::time::{Duration, Instant};

use super::*;

#[test]
fn the_file_is_bounded_and_the_one_before_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console.log");
    std::fs::write(&path, "the run before").unwrap();
    let mut tap = Tap::new(&path).unwrap();
    tap.keep(path.clone()).unwrap();
    let before = dir.path().join("console.log.1");
    assert_eq!(std::fs::read(&before).unwrap(), b"the run before");
    let chunk = vec![b'x'; 64 << 10];
    let size = |path| std::fs::metadata(path).unwrap().len();
    let deadline = Instant::now() + Duration::from_secs(60);
    // Faster than the file can be begun anew, until it has been.
    while size(&before) < LONG {
        assert!(Instant::now() < deadline, "the file was never begun anew");
        tap.write_all(&chunk).unwrap();
    }
    // The one before is put aside first.
    while !path.exists() {
        assert!(Instant::now() < deadline, "there is no new file");
        std::thread::yield_now();
    }
    assert!(size(&path) <= MOST && size(&before) <= MOST, "{} {}", size(&path), size(&before));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn viewers_see_what_is_written_and_slow_ones_are_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut tap = Tap::new(&dir.path().join("console.log")).unwrap();
    let (quick, slow) = (tap.view(), tap.view());
    tap.write_all(b"hello").unwrap();
    assert_eq!(quick.recv().unwrap(), b"hello");
    for _ in 0..BEHIND + 10 {
        tap.write_all(b".").unwrap();
        assert_eq!(quick.recv().unwrap(), b".");
    }
    assert_eq!(slow.iter().count(), BEHIND);
}
