use std::io::Write;

use flate2::write::DeflateEncoder;
use proptest::prelude::*;

use super::*;

/// What is in a cluster of an image that a test makes.
#[derive(Debug, Clone)]
enum Content {
    Nowhere,
    Zeros,
    Plain(u8),
    Compressed(u8),
}

/// An image as qemu-img would make it.
struct Maker {
    version: u32,
    bits: u32,
    zstd: bool,
    contents: Vec<Content>,
}

impl Maker {
    fn new(contents: Vec<Content>) -> Self {
        Self { version: 3, bits: 12, zstd: false, contents }
    }

    fn cluster(&self) -> usize {
        1 << self.bits
    }

    /// A cluster's bytes: of a kind that is not all the same.
    fn bytes(&self, seed: u8) -> Vec<u8> {
        (0..self.cluster()).map(|n| seed.wrapping_add((n / 7) as u8)).collect()
    }

    /// The disk's bytes.
    fn disk(&self) -> Vec<u8> {
        let contents = self.contents.iter().map(|content| match content {
            Content::Nowhere | Content::Zeros => vec![0; self.cluster()],
            Content::Plain(seed) | Content::Compressed(seed) => self.bytes(*seed),
        });
        contents.flatten().collect()
    }

    fn image(&self) -> Vec<u8> {
        let cluster = self.cluster();
        let entries = cluster / 8;
        let tables = self.contents.len().div_ceil(entries);
        let mut image = vec![0; cluster * (2 + tables)];
        let put = |image: &mut Vec<u8>, at: usize, bytes: &[u8]| {
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(&mut image, 0, &Qcow2::MAGIC);
        put(&mut image, 4, &self.version.to_be_bytes());
        put(&mut image, 20, &self.bits.to_be_bytes());
        put(&mut image, 24, &((self.contents.len() * cluster) as u64).to_be_bytes());
        put(&mut image, 36, &(tables as u32).to_be_bytes());
        put(&mut image, 40, &(cluster as u64).to_be_bytes());
        if self.version == 3 {
            put(&mut image, 72, &(u64::from(self.zstd) << 3).to_be_bytes());
            put(&mut image, 100, &112u32.to_be_bytes());
            put(&mut image, 104, &[u8::from(self.zstd)]);
        }
        for table in 0..tables {
            let offset = ((2 + table) * cluster) as u64 | 1 << 63;
            put(&mut image, cluster + 8 * table, &offset.to_be_bytes());
        }
        for (number, content) in self.contents.iter().enumerate() {
            let entry = match content {
                Content::Nowhere => 0,
                Content::Zeros => ZERO,
                Content::Plain(seed) => {
                    image.resize(image.len().next_multiple_of(cluster), 0xee);
                    let at = image.len() as u64;
                    image.extend(self.bytes(*seed));
                    at | 1 << 63
                }
                Content::Compressed(seed) => {
                    let data = self.compress(&self.bytes(*seed));
                    let at = image.len() as u64;
                    image.extend(&data);
                    let sectors = (at % 512 + data.len() as u64 - 1) / 512;
                    at | sectors << (62 - (self.bits - 8)) | COMPRESSED
                }
            };
            put(
                &mut image,
                (2 + number / entries) * cluster + 8 * (number % entries),
                &entry.to_be_bytes(),
            );
        }
        image
    }

    fn compress(&self, bytes: &[u8]) -> Vec<u8> {
        if self.zstd {
            return zstd::encode_all(bytes, 3).unwrap();
        }
        let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }
}

fn open(image: &[u8]) -> Result<Qcow2, Error> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(image).unwrap();
    Qcow2::open(file, "it.qcow2".to_owned())
}

fn sample() -> Vec<Content> {
    use Content::{Compressed, Nowhere, Plain, Zeros};
    let mut contents = vec![Plain(1), Nowhere, Zeros, Compressed(2), Plain(3), Compressed(9)];
    // More than a table of 512 clusters, with a table that has nothing.
    contents.resize(1600, Nowhere);
    contents.extend([Compressed(4), Compressed(5), Plain(6)]);
    contents
}

#[test]
fn every_kind_of_cluster_is_read_and_copied() {
    for (version, bits, zstd) in [(3, 12, false), (2, 12, false), (3, 12, true), (3, 16, false)] {
        let mut contents = sample();
        if version == 2 {
            contents[2] = Content::Nowhere;
        }
        let maker = Maker { version, bits, zstd, contents };
        let (image, expected) = (maker.image(), maker.disk());
        let disk = open(&image).unwrap();
        assert_eq!(disk.size(), expected.len() as u64);
        let mut all = vec![1; expected.len()];
        disk.read(0, &mut all).unwrap();
        assert!(all == expected, "version {version}, 2^{bits}, zstd {zstd}");
        // From anywhere to anywhere.
        for (at, len) in [(1, 5), (4000, 9000), (3 * 4096 + 17, 1), (expected.len() - 9, 9)] {
            let mut some = vec![1; len];
            disk.read(at as u64, &mut some).unwrap();
            assert!(some == expected[at..at + len], "{len} bytes at {at}");
        }
        let copy = tempfile::tempfile().unwrap();
        let mut last = 0;
        disk.copy_to(&copy, &mut |done, size| {
            assert!(last < done && done <= size);
            last = done;
        })
        .unwrap();
        assert_eq!(last, disk.size());
        let mut copied = vec![1; expected.len()];
        copy.read_exact_at(&mut copied, 0).unwrap();
        assert!(copied == expected);
    }
}

#[test]
fn a_file_that_ends_within_its_last_cluster_reads_as_zeros_there() {
    let maker = Maker::new(vec![Content::Plain(7)]);
    let mut image = maker.image();
    image.truncate(image.len() - 1000);
    let mut expected = maker.disk();
    expected[4096 - 1000..].fill(0);
    let mut bytes = vec![1; 4096];
    open(&image).unwrap().read(0, &mut bytes).unwrap();
    assert!(bytes == expected);
}

#[test]
fn what_cannot_be_read_is_refused_by_name() {
    let good = Maker::new(sample()).image();
    let changed = |at: usize, bytes: &[u8]| {
        let mut image = good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        match open(&image) {
            Err(error @ Error::BadImage { .. }) => error.to_string(),
            other => panic!("byte {at}: {other:?}"),
        }
    };
    assert!(changed(0, b"QFI!").contains("no qcow2 image"));
    assert!(changed(4, &9u32.to_be_bytes()).contains("version 9"));
    assert!(changed(8, &512u64.to_be_bytes()).contains("backing file"));
    assert!(changed(20, &3u32.to_be_bytes()).contains("2^3"));
    assert!(changed(20, &63u32.to_be_bytes()).contains("2^63"));
    assert!(changed(24, &1001u64.to_be_bytes()).contains("1001 bytes"));
    assert!(changed(24, &(1u64 << 42).to_be_bytes()).contains("too short"));
    assert!(changed(32, &1u32.to_be_bytes()).contains("encrypted"));
    assert!(changed(36, &u32::MAX.to_be_bytes()).contains("too long"));
    assert!(changed(40, &77u64.to_be_bytes()).contains("beginning of a cluster"));
    assert!(changed(40, &(1u64 << 40).to_be_bytes()).contains("not all there"));
    assert!(changed(72, &2u64.to_be_bytes()).contains("corrupt"));
    assert!(changed(72, &4u64.to_be_bytes()).contains("another file"));
    assert!(changed(72, &16u64.to_be_bytes()).contains("extended"));
    assert!(changed(72, &256u64.to_be_bytes()).contains("0x100"));
    for len in 0..112 {
        assert!(matches!(open(&good[..len]), Err(Error::BadImage { .. })), "{len} bytes");
    }
    let disk = open(&good).unwrap();
    assert!(matches!(disk.write(0, &[0; 512]), Err(Error::ReadOnly(_))));
    assert!(matches!(disk.read(disk.size(), &mut [0]), Err(Error::OutOfRange { .. })));
}

#[test]
fn a_compressed_cluster_that_is_damaged_is_an_error_of_its_own_bytes_alone() {
    let maker = Maker::new(vec![Content::Compressed(1), Content::Plain(2)]);
    let mut image = maker.image();
    // The stream begins where the tables end: a block of a kind that does not exist.
    image[3 * 4096] = 0xff;
    let disk = open(&image).unwrap();
    let mut bytes = vec![0; 4096];
    assert!(matches!(disk.read(0, &mut bytes), Err(Error::BadImage { .. })));
    disk.read(4096, &mut bytes).unwrap();
    assert!(bytes == maker.bytes(2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever the bytes are, reading ends, and ends well or with an error.
    #[test]
    fn no_image_does_harm(changes in prop::collection::vec((0usize..20_000, any::<u8>()), 1..20)) {
        let mut image = Maker::new(sample()).image();
        for (at, byte) in changes {
            if let Some(place) = image.get_mut(at) {
                *place = byte;
            }
        }
        if let Ok(disk) = open(&image) {
            let mut bytes = vec![0; 1 << 16];
            for at in [0, 1 << 16, disk.size().saturating_sub(1 << 16)] {
                let _ = disk.read(at, &mut bytes);
            }
        }
    }
}
