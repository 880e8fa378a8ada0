use std::process::{Command, Stdio};

use super::*;

fn archive() -> Vec<u8> {
    let mut out = Vec::new();
    let modules = [("00-a.ko".to_owned(), b"aaaaa".to_vec()), ("01-b.ko".to_owned(), vec![])];
    write(&mut out, b"#!agent", &modules).expect("written");
    out
}

/// Reads an archive back: name, mode, content.
fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut entries = Vec::new();
    let whole = bytes.len();
    loop {
        let field = |n: usize| {
            let text = std::str::from_utf8(&bytes[6 + n * 8..14 + n * 8]).expect("text");
            u32::from_str_radix(text, 16).expect("a number") as usize
        };
        assert_eq!(&bytes[..6], b"070701");
        let (mode, size, name_size) = (field(1), field(6), field(11));
        let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).expect("a name");
        let start = (110 + name_size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            assert_eq!(whole % 4, 0);
            return entries;
        }
        entries.push((name, mode as u32, bytes[start..start + size].to_vec()));
        bytes = &bytes[(start + size).next_multiple_of(4)..];
    }
}

#[test]
fn the_archive_has_the_agent_the_modules_and_their_order() {
    let entries = read(&archive());
    let get = |name: &str| entries.iter().find(|(n, _, _)| n == name).expect("there");
    assert_eq!((get("init").1, get("init").2.as_slice()), (0o100_755, &b"#!agent"[..]));
    assert_eq!(get("lib/modules/riad/00-a.ko").2, b"aaaaa");
    assert_eq!(get(MODULE_LIST).2, b"/lib/modules/riad/00-a.ko\n/lib/modules/riad/01-b.ko\n");
    assert_eq!(get("newroot").1, 0o040_755);
    assert_eq!(get("dev/console").1, 0o020_600);
    // A directory comes before what is in it.
    let place = |name: &str| entries.iter().position(|(n, _, _)| n == name).expect("there");
    assert!(
        place("lib") < place("lib/modules") && place("lib/modules") < place("lib/modules/riad")
    );
}

#[test]
fn cpio_can_list_it() {
    let child = Command::new("cpio")
        .args(["-t", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return };
    child.stdin.take().expect("a pipe").write_all(&archive()).expect("written");
    let output = child.wait_with_output().expect("ran");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).lines().any(|line| line == "init"));
}
