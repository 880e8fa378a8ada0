use std::io::ErrorKind;
use std::sync::Mutex;

use riad_disk::MemDisk;

use super::*;

/// A disk on a host that has room or has not.
#[derive(Debug)]
struct Host(MemDisk, AtomicBool);

impl Disk for Host {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read_only(&self) -> bool {
        false
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.0.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), Error> {
        if self.1.load(Ordering::Relaxed) {
            return Err(Error::Full { name: "it".into(), source: ErrorKind::StorageFull.into() });
        }
        self.0.write(offset, buf)
    }
    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.0.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), Error> {
        self.0.write_zeroes(offset, len)
    }
}

#[test]
fn each_change_is_told_once() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let host = Arc::new(Host(MemDisk::new(4096).unwrap(), AtomicBool::new(false)));
    let telling = Arc::clone(&told);
    let tell = move |why: Option<&Error>| telling.lock().unwrap().push(sentence(why));
    let room = Room::new(host.clone(), Box::new(tell));
    room.write(0, &[1; 512]).unwrap();
    // Another error says nothing about room.
    room.write(1 << 20, &[1; 512]).unwrap_err();
    assert!(told.lock().unwrap().is_empty());
    host.1.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(matches!(room.write(0, &[2; 512]), Err(Error::Full { .. })));
    }
    room.read(0, &mut [0; 512]).unwrap();
    host.1.store(false, Ordering::Relaxed);
    for _ in 0..3 {
        room.write(0, &[3; 512]).unwrap();
    }
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].contains("no room on the host for disk it") && told[1].contains("goes on"));
}
