use std::io::{Cursor, Write};

use proptest::prelude::*;

use super::*;

/// Writes an ar archive.
pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        bytes.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len())
                .bytes(),
        );
        bytes.extend(*content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).expect("appended");
    }
    builder.into_inner().expect("written")
}

fn compress(bytes: &[u8], extension: &str) -> Vec<u8> {
    match extension {
        ".gz" => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).expect("written");
            out.finish().expect("finished")
        }
        ".xz" => {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
            out.write_all(bytes).expect("written");
            out.finish().expect("finished")
        }
        ".zst" => zstd::encode_all(bytes, 1).expect("compressed"),
        _ => bytes.to_vec(),
    }
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file
}

#[test]
fn packages_of_every_compression_are_read() {
    for extension in ["", ".gz", ".xz", ".zst"] {
        let control =
            compress(&tar_of(&[("./control", b"Package: a\n"), ("./postinst", b"#!")]), extension);
        let data = compress(&tar_of(&[("./usr/bin/a", b"program")]), extension);
        let bytes = ar(&[
            ("debian-binary", b"2.0\n"),
            (&format!("control.tar{extension}"), &control),
            (&format!("data.tar{extension}"), &data),
        ]);
        let mut deb = Deb::open(file(&bytes)).expect("a package");
        let control = deb.control().expect("control files");
        assert_eq!(control["control"], b"Package: a\n");
        assert_eq!(control.len(), 2);
        let mut data = deb.data().expect("data");
        let mut entry = data.entries().expect("entries").next().expect("one").expect("whole");
        let mut text = String::new();
        entry.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "program");
    }
}

#[test]
fn what_is_no_package_is_refused() {
    let control = tar_of(&[("./control", b"Package: a\n")]);
    for members in [
        &[("control.tar", &control[..])][..],
        &[("debian-binary", b"3.0\n"), ("control.tar", &control), ("data.tar", b"")],
        &[("debian-binary", b"2.0\n"), ("data.tar", b"")],
        &[("debian-binary", b"2.0\n"), ("control.tar", &control)],
    ] {
        assert!(Deb::open(file(&ar(members))).is_err());
    }
    assert!(Deb::open(file(b"")).is_err());
    let unknown =
        ar(&[("debian-binary", b"2.0\n"), ("control.tar.lz", &control), ("data.tar.lz", b"")]);
    let error = Deb::open(file(&unknown)).expect("opens").control().expect_err("unknown");
    assert!(error.to_string().contains("control.tar.lz"), "{error}");
}

#[test]
fn a_package_cut_short_anywhere_is_refused() {
    let data = compress(&tar_of(&[("./a", &[7; 5000])]), ".xz");
    let bytes = ar(&[
        ("debian-binary", b"2.0\n"),
        ("control.tar", &tar_of(&[("./control", b"Package: a\n")])),
        ("data.tar.xz", &data),
    ]);
    for length in (0..bytes.len()).step_by(13) {
        let read_all = |bytes: &[u8]| -> Result<(), DebError> {
            let mut deb = Deb::open(file(bytes))?;
            deb.control()?;
            for entry in deb.data()?.entries()? {
                io::copy(&mut entry?, &mut io::sink())?;
            }
            Ok(())
        };
        assert!(read_all(&bytes[..length]).is_err(), "cut at {length}");
    }
}

#[test]
fn a_bomb_is_an_error() {
    let mut bounded = Bounded::new(io::repeat(0), "data", 1 << 20);
    assert!(io::copy(&mut bounded, &mut io::sink()).is_err());
    let mut exact = Bounded::new(io::repeat(0).take(100), "data", 100);
    assert_eq!(io::copy(&mut exact, &mut io::sink()).expect("fits"), 100);
}

proptest! {
    #[test]
    fn any_archive_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut all = b"!<arch>\n".to_vec();
        all.extend(bytes);
        if let Ok(members) = read_members(&mut Cursor::new(&all)) {
            for member in members {
                prop_assert!(member.offset + member.size <= all.len() as u64);
            }
        }
    }
}
