use std::io::Write;

use super::super::images::lz4_legacy;
use super::*;

fn sample() -> Vec<u8> {
    (0..200_000u32).flat_map(|i| (i / 7).to_le_bytes()).collect()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn xz(data: &[u8], alone: bool) -> Vec<u8> {
    use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
    let options = LzmaOptions::new_preset(1).unwrap();
    let stream = if alone {
        Stream::new_lzma_encoder(&options).unwrap()
    } else {
        let mut filters = Filters::new();
        filters.x86().lzma2(&options);
        Stream::new_stream_encoder(&filters, Check::Crc32).unwrap()
    };
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn all(data: &[u8]) -> Vec<(Compression, Vec<u8>)> {
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(data).unwrap();
    vec![
        (Compression::Gzip, gzip(data)),
        (Compression::Xz, xz(data, false)),
        (Compression::Lzma, xz(data, true)),
        (Compression::Zstd, zstd::encode_all(data, 1).unwrap()),
        (Compression::Lz4, lz4_legacy(data)),
        (Compression::Bzip2, bzip2.finish().unwrap()),
    ]
}

#[test]
fn every_format_is_recognised_and_unpacked() {
    let data = sample();
    for (compression, packed) in all(&data) {
        assert_eq!(Compression::detect(&packed), Some(compression));
        assert!(compression.unpack(&packed).unwrap() == data, "{compression}");
    }
}

#[test]
fn lz4_blocks_follow_each_other() {
    let data = vec![7u8; (8 << 20) + 5];
    assert!(Compression::Lz4.unpack(&lz4_legacy(&data)).unwrap() == data);
}

#[test]
fn cut_streams_are_errors() {
    for (compression, packed) in all(&sample()) {
        let cut = &packed[..packed.len() / 2];
        assert!(
            matches!(compression.unpack(cut), Err(BootError::Unpack { what, .. }) if what == compression),
            "{compression}"
        );
    }
}

#[test]
fn bombs_are_refused() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..=MAX_UNPACKED >> 20 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(matches!(Compression::Gzip.unpack(&bomb), Err(BootError::TooLarge)));
}
