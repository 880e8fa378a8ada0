use super::*;

#[test]
fn keeps_what_is_written() {
    let disk = MemDisk::new(1024).unwrap();
    disk.write(500, &[7; 100]).unwrap();
    disk.discard(550, 10).unwrap();
    let mut buf = [1; 20];
    disk.read(545, &mut buf).unwrap();
    assert_eq!(buf, [7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7]);
    assert!(matches!(disk.write(1000, &[0; 25]), Err(Error::OutOfRange { .. })));
    assert!(matches!(disk.discard(u64::MAX, 2), Err(Error::OutOfRange { .. })));
    let disk = disk.into_read_only();
    assert!(matches!(disk.write_zeroes(0, 1), Err(Error::ReadOnly(_))));
    assert!(matches!(MemDisk::new(513), Err(Error::OddSize { .. })));
}
