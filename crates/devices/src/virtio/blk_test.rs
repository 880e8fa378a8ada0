use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::*;
use crate::virtio::driver_test::{Choices, Guest};

/// A disk in memory that counts flushes.
#[derive(Debug)]
struct Ram {
    bytes: Mutex<Vec<u8>>,
    flushes: Mutex<u32>,
    read_only: bool,
    broken: bool,
    /// There is no room for what is written.
    full: AtomicBool,
    /// Writes that were tried.
    tried: AtomicU32,
}

impl Ram {
    fn new(sectors: usize) -> Self {
        let bytes = (0..sectors * 512).map(|at| (at / 512 + at % 251) as u8).collect();
        Self {
            bytes: Mutex::new(bytes),
            flushes: Mutex::new(0),
            read_only: false,
            broken: false,
            full: AtomicBool::new(false),
            tried: AtomicU32::new(0),
        }
    }

    fn with<T>(
        &self,
        offset: u64,
        len: u64,
        f: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, riad_disk::Error> {
        let mut bytes = self.bytes.lock().unwrap();
        let (name, size) = ("test".to_owned(), bytes.len() as u64);
        if self.broken {
            let source = std::io::ErrorKind::Other.into();
            return Err(riad_disk::Error::Io { what: "anything", name, source });
        }
        match bytes.get_mut(offset as usize..(offset + len) as usize) {
            Some(range) => Ok(f(range)),
            None => Err(riad_disk::Error::OutOfRange { offset, len, size, name }),
        }
    }
}

impl Disk for Ram {
    fn size(&self) -> u64 {
        self.bytes.lock().unwrap().len() as u64
    }
    fn read_only(&self) -> bool {
        self.read_only
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), riad_disk::Error> {
        self.with(offset, buf.len() as u64, |bytes| buf.copy_from_slice(bytes))
    }
    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), riad_disk::Error> {
        self.tried.fetch_add(1, Ordering::Relaxed);
        if self.full.load(Ordering::Relaxed) {
            let (name, source) = ("test".to_owned(), std::io::ErrorKind::StorageFull.into());
            return Err(riad_disk::Error::Full { name, source });
        }
        self.with(offset, buf.len() as u64, |bytes| bytes.copy_from_slice(buf))
    }
    fn flush(&self) -> Result<(), riad_disk::Error> {
        *self.flushes.lock().unwrap() += 1;
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> Result<(), riad_disk::Error> {
        self.with(offset, len, |bytes| bytes.fill(0))
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), riad_disk::Error> {
        self.with(offset, len, |bytes| bytes.fill(0))
    }
}

const OK: u8 = Status::Ok as u8;
const IO_ERROR: u8 = Status::IoError as u8;
const UNSUPPORTED: u8 = Status::Unsupported as u8;

fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

fn range(sector: u64, count: u32, flags: u32) -> [u8; 16] {
    let range = u128::from(sector) | (u128::from(count) << 64) | (u128::from(flags) << 96);
    range.to_le_bytes()
}

fn setup(disk: Ram, features: u64) -> (Arc<Ram>, Guest) {
    let disk = Arc::new(disk);
    let device = Blk::new(disk.clone(), "a serial number that is too long");
    let guest = Guest::new(Box::new(device), Choices { features, ..Choices::default() });
    (disk, guest)
}

/// Sends a request; returns status and data read.
fn ask(guest: &mut Guest, kind: u32, sector: u64, out: &[u8], room: u32) -> (u8, Vec<u8>) {
    let header = header(kind, sector);
    let mut parts: Vec<&[u8]> = vec![&header[..5], &header[5..]];
    parts.extend(out.chunks(0x10000));
    // In odd pieces; the status has a descriptor of its own or shares the last one.
    let mut rooms: Vec<u32> = Vec::new();
    let mut left = room;
    while left > 0 {
        let piece = left.min(0x9001);
        rooms.push(piece);
        left -= piece;
    }
    match rooms.last_mut() {
        Some(last) if room.is_multiple_of(3) => *last += 1,
        _ => rooms.push(1),
    }
    guest.submit(0, &parts, &rooms);
    let mut used = guest.wait(0);
    assert_eq!(used.len, room + 1);
    let status = used.data.pop().unwrap();
    (status, used.data)
}

#[test]
fn reads_and_writes_land_where_they_should() {
    for features in [u64::MAX, 0] {
        let (disk, mut guest) = setup(Ram::new(2048), features);
        let mut model = disk.bytes.lock().unwrap().clone();
        let mut random = 12345u64;
        for _ in 0..200 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let sector = (random >> 33) % 1900;
            let len = 512 * (1 + (random >> 40) % 140) as usize;
            let at = sector as usize * 512;
            if random & (1 << 60) == 0 {
                let (status, data) = ask(&mut guest, request::IN, sector, &[], len as u32);
                assert_eq!((status, data.as_slice()), (OK, &model[at..at + len]));
            } else {
                let data: Vec<u8> =
                    (0..len).map(|n| ((n as u64).wrapping_mul(random) >> 7) as u8).collect();
                let (status, _) = ask(&mut guest, request::OUT, sector, &data, 0);
                assert_eq!(status, OK);
                model[at..at + len].copy_from_slice(&data);
            }
        }
        assert_eq!(*disk.bytes.lock().unwrap(), model);
    }
}

#[test]
fn the_ends_of_the_disk_are_guarded() {
    let (_, mut guest) = setup(Ram::new(8), u64::MAX);
    for (sector, len) in [(8, 512), (7, 1024), (u64::MAX, 512), (1 << 55, 512), (0, 511)] {
        let (status, data) = ask(&mut guest, request::IN, sector, &[], len);
        assert_eq!(status, IO_ERROR, "{sector} {len}");
        assert!(data.iter().all(|byte| *byte == 0));
        let out = vec![1; len as usize];
        assert_eq!(ask(&mut guest, request::OUT, sector, &out, 0).0, IO_ERROR, "{sector} {len}");
    }
    assert_eq!(ask(&mut guest, request::IN, 7, &[], 512).0, OK);
}

#[test]
fn other_requests() {
    let (disk, mut guest) = setup(Ram::new(64), u64::MAX);
    assert_eq!(ask(&mut guest, request::FLUSH, 0, &[], 0).0, OK);
    assert_eq!(*disk.flushes.lock().unwrap(), 1);
    let (status, id) = ask(&mut guest, request::GET_ID, 0, &[], 20);
    assert_eq!((status, id.as_slice()), (OK, &b"a serial number that"[..]));
    let (status, id) = ask(&mut guest, request::GET_ID, 0, &[], 30);
    assert_eq!((status, &id[18..]), (OK, &b"at\0\0\0\0\0\0\0\0\0\0"[..]));
    assert_eq!(ask(&mut guest, 99, 0, b"what", 7).0, UNSUPPORTED);

    let two = [range(2, 2, 0), range(10, 1, 0)].concat();
    assert_eq!(ask(&mut guest, request::DISCARD, 0, &two, 0).0, OK);
    assert_eq!(ask(&mut guest, request::WRITE_ZEROES, 0, &range(20, 4, 1), 0).0, OK);
    let zero = |sector: usize| {
        disk.bytes.lock().unwrap()[512 * sector..][..512].iter().all(|byte| *byte == 0)
    };
    let zeros: Vec<usize> = (0..64).filter(|sector| zero(*sector)).collect();
    assert_eq!(zeros, [2, 3, 10, 20, 21, 22, 23]);

    for (kind, ranges, expected) in [
        (request::DISCARD, range(63, 2, 0).to_vec(), IO_ERROR),
        (request::DISCARD, range(u64::MAX, 1, 0).to_vec(), IO_ERROR),
        (request::DISCARD, range(0, 1, 1).to_vec(), UNSUPPORTED),
        (request::WRITE_ZEROES, range(0, 1, 2).to_vec(), UNSUPPORTED),
        (request::WRITE_ZEROES, range(0, u32::MAX, 0).to_vec(), IO_ERROR),
        (request::WRITE_ZEROES, vec![0; 15], IO_ERROR),
        (request::DISCARD, vec![], IO_ERROR),
        (request::DISCARD, vec![0; 16 * 65], IO_ERROR),
    ] {
        assert_eq!(ask(&mut guest, kind, 0, &ranges, 0).0, expected, "{kind} {ranges:?}");
    }
}

#[test]
fn read_only_disks_refuse_writes() {
    let (disk, mut guest) = setup(Ram { read_only: true, ..Ram::new(8) }, u64::MAX);
    assert_ne!(guest.offered() & feature::RO, 0);
    assert_eq!(guest.offered() & (feature::DISCARD | feature::WRITE_ZEROES), 0);
    let before = disk.bytes.lock().unwrap().clone();
    assert_eq!(ask(&mut guest, request::OUT, 0, &[1; 512], 0).0, IO_ERROR);
    assert_eq!(ask(&mut guest, request::DISCARD, 0, &range(0, 1, 0), 0).0, UNSUPPORTED);
    assert_eq!(ask(&mut guest, request::IN, 0, &[], 512).0, OK);
    assert_eq!(*disk.bytes.lock().unwrap(), before);
}

#[test]
fn without_flush_every_write_is_durable() {
    let (disk, mut guest) = setup(Ram::new(8), !feature::FLUSH);
    assert_eq!(ask(&mut guest, request::OUT, 0, &[1; 512], 0).0, OK);
    assert_eq!(*disk.flushes.lock().unwrap(), 1);
}

#[test]
fn a_broken_disk_is_an_io_error() {
    let (_, mut guest) = setup(Ram { broken: true, ..Ram::new(8) }, u64::MAX);
    assert_eq!(ask(&mut guest, request::IN, 0, &[], 512), (IO_ERROR, vec![0; 512]));
}

#[test]
fn senseless_requests_come_back() {
    let (_, mut guest) = setup(Ram::new(8), u64::MAX);
    guest.submit(0, &[b"short"], &[1]);
    let used = guest.wait(0);
    assert_eq!((used.len, used.data), (1, vec![IO_ERROR]));
    guest.submit(0, &[&header(request::OUT, 0), &[1; 512]], &[]);
    assert_eq!(guest.wait(0).len, 0);
    assert_eq!(ask(&mut guest, request::IN, 0, &[], 512).0, OK);
}

#[test]
fn many_requests_at_once() {
    let (_, mut guest) = setup(Ram::new(64), u64::MAX);
    let mut asked = 0;
    let mut back = 0;
    while back < 5000 {
        while asked < 5000 && guest.rings[0].has_room(2) {
            guest.submit(0, &[&header(request::IN, asked % 64)], &[513]);
            asked += 1;
        }
        assert_eq!(guest.wait(0).data[512], OK);
        back += 1;
    }
}

#[test]
fn configuration_is_as_specified() {
    let (_, guest) = setup(Ram::new(4096), u64::MAX);
    let fields: Vec<u32> =
        [0, 4, 8, 12, 20, 36, 40, 44, 48, 52, 56, 60].map(|at| guest.read32(0x2000 + at)).into();
    assert_eq!(fields, [4096, 0, 1 << 20, 254, 512, 1 << 22, 64, 8, 1 << 22, 64, 1, 0]);
}

#[test]
fn saved_with_requests_waiting_it_serves_them_after_restore() {
    let (disk, mut guest) = setup(Ram::new(64), u64::MAX);
    ask(&mut guest, request::IN, 0, &[], 512);
    guest.pci.pause();
    guest.submit(0, &[&header(request::OUT, 5), &[0x77; 512]], &[1]);
    let state = guest.pci.save();
    let json = serde_json::to_string(&state).unwrap();
    let state = serde_json::from_str(&json).unwrap();
    assert_eq!(guest.pci.save(), state);
    let DeviceState::Blk(blk) = &state.device else { panic!("{state:?}") };
    let other: Arc<dyn Disk> = Arc::new(Ram::new(65));
    assert_eq!(Blk::restore(other, blk).unwrap_err(), WrongDisk { saved: 64, given: 65 });
    let device = Blk::restore(disk.clone(), blk).unwrap();
    let mut again = guest.restored(Box::new(device), &state);
    again.pci.resume();
    assert_eq!(again.wait(0).data, [OK]);
    assert_eq!(disk.bytes.lock().unwrap()[5 * 512..6 * 512], [0x77; 512]);
    let (status, data) = ask(&mut again, request::IN, 5, &[], 512);
    assert_eq!((status, data), (OK, vec![0x77; 512]));
}

#[test]
fn what_was_served_is_counted_and_what_failed_is_counted_apart() {
    let device = Blk::new(Arc::new(Ram::new(64)), "");
    let handle = device.handle();
    let mut guest =
        Guest::new(Box::new(device), Choices { features: u64::MAX, ..Choices::default() });
    assert_eq!(handle.counts(), BlkCounts::default());
    assert_eq!(ask(&mut guest, request::OUT, 1, &[7; 1024], 0).0, OK);
    assert_eq!(ask(&mut guest, request::IN, 0, &[], 1536).0, OK);
    assert_eq!(ask(&mut guest, request::FLUSH, 0, &[], 0).0, OK);
    assert_eq!(ask(&mut guest, request::DISCARD, 0, &range(0, 8, 0), 0).0, OK);
    // Past the end, and none that there is.
    assert_eq!(ask(&mut guest, request::IN, 64, &[], 512).0, IO_ERROR);
    assert_eq!(ask(&mut guest, 99, 0, &[], 0).0, UNSUPPORTED);
    let expected = BlkCounts {
        reads: 1,
        read_bytes: 1536,
        writes: 1,
        written_bytes: 1024,
        flushes: 1,
        discards: 1,
        failures: 2,
    };
    assert_eq!(handle.counts(), expected);
}

#[test]
fn a_disk_that_grows_is_told_to_the_driver() {
    let disk = Arc::new(Growing(AtomicU64::new(64 * 512)));
    let device = Blk::new(disk.clone(), "");
    let handle = device.handle();
    assert!(!handle.resized(), "nobody drives it yet");
    let mut guest =
        Guest::new(Box::new(device), Choices { features: u64::MAX, ..Choices::default() });
    let generation = guest.read16(0x14) >> 8;
    disk.0.store(128 * 512, Ordering::Relaxed);
    assert!(handle.resized());
    assert_ne!(guest.read16(0x14) >> 8, generation);
    assert_eq!(ask(&mut guest, request::FLUSH, 0, &[], 0).0, OK);
}

/// A disk of zeros whose size changes.
#[derive(Debug)]
struct Growing(AtomicU64);

impl Disk for Growing {
    fn size(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, _: u64, buf: &mut [u8]) -> Result<(), riad_disk::Error> {
        buf.fill(0);
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), riad_disk::Error> {
        Ok(())
    }

    fn flush(&self) -> Result<(), riad_disk::Error> {
        Ok(())
    }

    fn discard(&self, _: u64, _: u64) -> Result<(), riad_disk::Error> {
        Ok(())
    }

    fn write_zeroes(&self, _: u64, _: u64) -> Result<(), riad_disk::Error> {
        Ok(())
    }
}

#[test]
fn a_write_for_which_there_is_no_room_waits_and_is_made_when_there_is() {
    let disk = Ram::new(64);
    disk.full.store(true, Ordering::Relaxed);
    let (disk, mut guest) = setup(disk, u64::MAX);
    let data = vec![0xa5; 1024];
    let write = guest.submit(0, &[&header(request::OUT, 8), &data], &[1]);
    // Nothing else waits for it.
    let (status, before) = ask(&mut guest, request::IN, 8, &[], 1024);
    assert_eq!(status, OK);
    assert_ne!(before, data);
    // It is tried again without being asked for.
    while disk.tried.load(Ordering::Relaxed) < 3 {
        std::thread::yield_now();
    }
    guest.pci.pause();
    guest.pci.resume();
    assert!(guest.poll(0).is_none(), "a request was answered for which there is no room");
    disk.full.store(false, Ordering::Relaxed);
    let used = guest.wait(0);
    assert_eq!((used.head, used.data), (write, vec![OK]));
    assert_eq!(ask(&mut guest, request::IN, 8, &[], 1024), (OK, data));
}

#[test]
fn a_write_that_waits_is_saved_and_made_by_the_machine_that_goes_on() {
    let disk = Ram::new(64);
    disk.full.store(true, Ordering::Relaxed);
    let (disk, mut guest) = setup(disk, u64::MAX);
    let data = vec![0x5a; 512];
    let write = guest.submit(0, &[&header(request::OUT, 3), &data], &[1]);
    // By the processor, and by the worker, which puts it aside.
    while disk.tried.load(Ordering::Relaxed) < 2 {
        std::thread::yield_now();
    }
    guest.pci.pause();
    let saved = guest.pci.save();
    let DeviceState::Blk(state) = &saved.device else { panic!("{saved:?}") };
    assert_eq!(state.aside, [write]);
    disk.full.store(false, Ordering::Relaxed);
    let device = Blk::restore(disk.clone(), state).unwrap();
    let mut other = guest.restored(Box::new(device), &saved);
    other.pci.resume();
    let used = other.wait(0);
    assert_eq!((used.head, used.data), (write, vec![OK]));
    assert_eq!(disk.bytes.lock().unwrap()[3 * 512..4 * 512], data[..]);
}

#[test]
fn a_driver_that_has_more_waiting_than_its_queue_holds_is_stopped() {
    let disk = Ram::new(64);
    disk.full.store(true, Ordering::Relaxed);
    let (_disk, mut guest) = setup(disk, u64::MAX);
    let head = guest.submit(0, &[&header(request::OUT, 8), &[1; 512]], &[1]);
    // The same buffer over and over, as no driver may.
    for _ in 0..64 {
        let memory = guest.memory.clone();
        guest.rings[0].offer(&memory, head);
        guest.notify(0);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    guest.wait_for_status(crate::virtio::signals::status::NEEDS_RESET);
}

/// A guest in front of a disk that is a file.
fn on_file(bytes: &[u8]) -> (tempfile::NamedTempFile, Guest) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let disk = riad_disk::RawDisk::open(file.path(), false).unwrap();
    let device = Blk::new(Arc::new(disk), "file");
    (file, Guest::new(Box::new(device), Choices::default()))
}

#[test]
fn a_file_is_read_and_written_in_place() {
    let mut model: Vec<u8> = (0..1u32 << 20).map(|n| (n * 31 + n / 512) as u8).collect();
    let (file, mut guest) = on_file(&model);
    // Short and long, in odd pieces.
    for (sector, sectors) in [(0, 1), (7, 60), (100, 128), (200, 700), (2047, 1)] {
        let (at, len) = (sector as usize * 512, sectors * 512);
        let (status, data) = ask(&mut guest, request::IN, sector, &[], len as u32);
        assert!(status == OK && data == model[at..at + len], "{sectors} sectors at {sector}");
        let data: Vec<u8> = (0..len).map(|n| (n * 7 + at) as u8).collect();
        assert_eq!(ask(&mut guest, request::OUT, sector, &data, 0).0, OK);
        model[at..at + len].copy_from_slice(&data);
    }
    assert!(std::fs::read(file.path()).unwrap() == model);
}

#[test]
fn short_requests_are_served_before_the_processor_goes_on() {
    let (_file, mut guest) = on_file(&vec![7; 1 << 20]);
    // The worker has had its first turn when it has served something that is its own.
    assert_eq!(ask(&mut guest, request::FLUSH, 0, &[], 0).0, OK);
    let served = |guest: &mut Guest, kind: u32, out: &[u8], room: u32| {
        let header = header(kind, 8);
        let parts: [&[u8]; 2] = [&header, out];
        guest.submit(0, &parts[..1 + usize::from(!out.is_empty())], &[room + 1]);
        guest.poll(0)
    };
    // The worker may be looking around still, the longer the busier the host is: then it is its own.
    // Reads are too where the host cannot tell what it has in its memory.
    let (mut at_once, began) = (0, std::time::Instant::now());
    while at_once < 10 {
        assert!(began.elapsed().as_secs() < 60, "{at_once} in a minute");
        for (kind, out, room) in [(request::OUT, &[9; 4096][..], 0), (request::IN, &[], 4096)] {
            match served(&mut guest, kind, out, room) {
                Some(used) => {
                    assert_eq!(used.data.last(), Some(&OK));
                    at_once += 1;
                }
                None => {
                    assert_eq!(guest.wait(0).data.last(), Some(&OK));
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        }
    }
    // While the machine is held, nobody serves.
    guest.pci.pause();
    assert_eq!(served(&mut guest, request::OUT, &[1; 512], 0), None);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(guest.poll(0), None);
    guest.pci.resume();
    assert_eq!(guest.wait(0).data, [OK]);
}
