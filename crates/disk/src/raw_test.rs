use std::os::unix::fs::MetadataExt;

use super::*;

fn bench(size: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(size).unwrap();
    (dir, path)
}

#[test]
fn reads_and_writes() {
    let (_dir, path) = bench(1 << 20);
    let disk = RawDisk::open(&path, false).unwrap();
    assert_eq!((disk.size(), disk.read_only()), (1 << 20, false));
    disk.write(1000, b"courtyard").unwrap();
    disk.flush().unwrap();
    let mut buf = [0; 9];
    RawDisk::open(&path, true).unwrap().read(1000, &mut buf).unwrap();
    assert_eq!(&buf, b"courtyard");
}

#[test]
fn refuses_what_is_out_of_range() {
    let (_dir, path) = bench(1024);
    let disk = RawDisk::open(&path, false).unwrap();
    let mut buf = [0; 512];
    disk.read(512, &mut buf).unwrap();
    for result in [
        disk.read(513, &mut buf),
        disk.read(u64::MAX, &mut buf),
        disk.write(513, &buf),
        disk.discard(0, 1025),
        disk.write_zeroes(u64::MAX, u64::MAX),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains("past the end") && message.contains("disk.img"), "{message}");
    }
}

#[test]
fn refuses_writes_when_read_only() {
    let (_dir, path) = bench(1024);
    let disk = RawDisk::open(&path, true).unwrap();
    for result in [disk.write(0, &[0]), disk.discard(0, 512), disk.write_zeroes(0, 512)] {
        assert!(matches!(result, Err(Error::ReadOnly(_))));
    }
    disk.flush().unwrap();
}

#[test]
fn one_writes_alone_or_several_read() {
    let (_dir, path) = bench(1024);
    let in_use = |read_only| {
        let error = RawDisk::open_alone(&path, read_only).unwrap_err();
        assert!(matches!(error, Error::InUse(_)), "{error}");
    };
    let writer = RawDisk::open_alone(&path, false).unwrap();
    in_use(false);
    in_use(true);
    drop(writer);
    let readers = [true, true].map(|read_only| RawDisk::open_alone(&path, read_only).unwrap());
    in_use(false);
    drop(readers);
    RawDisk::open_alone(&path, false).unwrap();
}

#[test]
fn a_disk_grows_while_it_is_in_use_and_never_shrinks() {
    let (_dir, path) = bench(1024);
    let disk = RawDisk::open(&path, false).unwrap().labelled("data");
    disk.write(512, &[7; 512]).unwrap();
    disk.grow(4096).unwrap();
    disk.write(3584, &[8; 512]).unwrap();
    let mut bytes = [1; 4096];
    disk.read(0, &mut bytes).unwrap();
    assert_eq!([bytes[511], bytes[512], bytes[1024], bytes[3584]], [0, 7, 0, 8]);
    for (size, words) in [(2048, "only grow"), (5000, "multiple of 512")] {
        let error = disk.grow(size).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert_eq!((disk.size(), disk.label()), (4096, Some("data")));
    assert!(matches!(RawDisk::open(&path, true).unwrap().grow(8192), Err(Error::ReadOnly(_))));
}

#[test]
fn refuses_what_is_not_a_disk() {
    let (dir, path) = bench(1000);
    let message = RawDisk::open(&path, true).unwrap_err().to_string();
    assert!(message.contains("1000 bytes") && message.contains("truncate"), "{message}");
    assert!(matches!(RawDisk::open(dir.path(), true), Err(Error::Io { what: "open", .. })));
    let missing = RawDisk::open(&dir.path().join("none"), true).unwrap_err().to_string();
    assert!(missing.contains("none"), "{missing}");
}

#[test]
fn zeros_and_holes() {
    let (_dir, path) = bench(1 << 20);
    let disk = RawDisk::open(&path, false).unwrap();
    disk.write(0, &[0xff; 1 << 20]).unwrap();
    disk.discard(0, 1 << 19).unwrap();
    disk.write_zeroes((1 << 19) + 100, 1000).unwrap();
    disk.write_zeroes(1 << 20, 0).unwrap();
    let mut buf = vec![0; 1 << 20];
    disk.read(0, &mut buf).unwrap();
    let zero = |range: std::ops::Range<usize>| buf[range].iter().all(|&byte| byte == 0);
    assert!(zero(0..1 << 19) && zero((1 << 19) + 100..(1 << 19) + 1100));
    assert!(buf[1 << 19..(1 << 19) + 100].iter().all(|&byte| byte == 0xff));
    assert!(buf[(1 << 19) + 1100..].iter().all(|&byte| byte == 0xff));
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 <= 1 << 20);
}

#[test]
fn zeros_without_holes() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[0xff; 200_000], 0).unwrap();
    write_zeros(&file, 10, 150_000).unwrap();
    let mut buf = vec![0; 200_000];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert!(buf[10..150_010].iter().all(|&byte| byte == 0));
    assert_eq!((buf[9], buf[150_010]), (0xff, 0xff));
}
