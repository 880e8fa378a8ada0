use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tar::{Builder, EntryType, Header};

use super::*;

fn unpack(place: &Path, bytes: &[u8]) -> Result<Copied, CopyError> {
    let fd = File::open(place).unwrap();
    unpack::unpack(bytes, &fd, place, OsStr::new("a"), OsStr::new("b"), &mut |_| {})
}

fn pack(path: &Path) -> (Vec<u8>, Copied) {
    let mut bytes = Vec::new();
    let sources = [(path.to_owned(), OsString::from("a"))];
    let copied = pack::pack(&sources, &mut bytes, &mut |_| {}).unwrap();
    (bytes, copied)
}

/// An archive of entries with a name, a kind, and what a link leads to or a file holds. Names are
/// written as they are, which the builder itself refuses.
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            gnu.linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        let data = if is_link { "" } else { content };
        header.set_entry_type(*kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o4755);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir_all(from.join("deep/er")).unwrap();
    std::fs::create_dir(&to).unwrap();
    let long = "n".repeat(200);
    std::fs::write(from.join("deep").join(&long), vec![7; 100_000]).unwrap();
    std::fs::write(from.join("empty"), "").unwrap();
    std::fs::set_permissions(from.join("empty"), PermissionsExt::from_mode(0o751)).unwrap();
    symlink("/nowhere/at/all", from.join("link")).unwrap();
    let then = UNIX_EPOCH_PLUS;
    File::open(from.join("deep")).unwrap().set_modified(then).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    let (bytes, copied) = pack(&from);
    assert_eq!(copied.bytes, 100_000);
    assert_eq!(copied.left_out.len(), 1, "{:?}", copied.left_out);
    for _again in 0..2 {
        assert_eq!(unpack(&to, &bytes).unwrap().bytes, 100_000);
        let to = to.join("b");
        assert_eq!(std::fs::read(to.join("deep").join(&long)).unwrap(), vec![7; 100_000]);
        assert_eq!(std::fs::metadata(to.join("empty")).unwrap().mode() & 0o7777, 0o751);
        assert_eq!(std::fs::read_link(to.join("link")).unwrap(), Path::new("/nowhere/at/all"));
        assert_eq!(std::fs::metadata(to.join("deep")).unwrap().modified().unwrap(), then);
        assert!(to.join("deep/er").is_dir() && !to.join("socket").exists());
    }
}

const UNIX_EPOCH_PLUS: std::time::SystemTime = std::time::UNIX_EPOCH;

#[test]
fn a_single_file_gets_its_new_name_and_no_rights_of_others() {
    let dir = tempfile::tempdir().unwrap();
    unpack(dir.path(), &archive(&[("a", EntryType::Regular, "hello")])).unwrap();
    let file = dir.path().join("b");
    assert_eq!(std::fs::read(&file).unwrap(), b"hello");
    let metadata = std::fs::metadata(&file).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o755, 1_000_000_000));
}

#[test]
fn no_entry_leads_out_of_the_place() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let out = outside.path().to_str().unwrap();
    let file = EntryType::Regular;
    let (link, hard, directory) = (EntryType::Symlink, EntryType::Link, EntryType::Directory);
    let through = format!("a/{}", "victim");
    let absolute = victim.to_str().unwrap();
    #[rustfmt::skip]
    let cases: &[&[(&str, EntryType, &str)]] = &[
        &[("../victim", file, "x")],
        &[("a/../../victim", file, "x")],
        &[(absolute, file, "x")],
        &[("other", file, "x")],
        &[("", file, "x")],
        // A link that the archive brings, and a way through it.
        &[("a", link, out), (&through, file, "x")],
        &[("a", directory, ""), ("a/l", link, out), ("a/l/victim", file, "x")],
        &[("a", directory, ""), ("a/l", link, out), ("a/l/new", directory, "")],
        &[("a", directory, ""), ("a/l", link, out), ("a/l", directory, "")],
        &[("a", directory, ""), ("a/h", hard, absolute)],
        &[("a", directory, ""), ("a/h", hard, "../victim")],
        &[("a", directory, ""), ("a/l", link, out), ("a/h", hard, "a/l/victim")],
    ];
    for entries in cases {
        let place = tempfile::tempdir().unwrap();
        let result = unpack(place.path(), &archive(entries));
        assert!(result.is_err(), "{entries:?}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"untouched", "{entries:?}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "{entries:?}");
    }
}

#[test]
fn a_link_in_the_way_is_replaced_and_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    symlink(&victim, dir.path().join("b")).unwrap();
    unpack(dir.path(), &archive(&[("a", EntryType::Regular, "x")])).unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"untouched");
    assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"x");
}

#[test]
fn hard_links_stay_links_and_devices_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let entries = [
        ("a", EntryType::Directory, ""),
        ("a/one", EntryType::Regular, "x"),
        ("a/two", EntryType::Link, "a/one"),
        ("a/dev", EntryType::Char, ""),
    ];
    let copied = unpack(dir.path(), &archive(&entries)).unwrap();
    assert_eq!(copied.left_out.len(), 1);
    let inode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().ino();
    assert_eq!(inode("b/one"), inode("b/two"));
    assert!(!dir.path().join("b/dev").exists());
}

#[test]
fn nonsense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(unpack(dir.path(), &[0x55; 2000]).is_err());
    let cut = &archive(&[("a", EntryType::Regular, &"x".repeat(5000))])[..2000];
    assert!(unpack(dir.path(), cut).is_err());
}

#[test]
fn paths_have_directories_and_names() {
    let split = |path: &str| {
        split(OsStr::new(path)).map(|(d, n)| (d.into_string().unwrap(), n.into_string().unwrap()))
    };
    assert_eq!(split("/etc/motd").unwrap(), ("/etc".to_owned(), "motd".to_owned()));
    assert_eq!(split("motd").unwrap(), (".".to_owned(), "motd".to_owned()));
    assert_eq!(split("/srv/").unwrap(), ("/".to_owned(), "srv".to_owned()));
    assert!(matches!(split("/"), Err(CopyError::NoName(_))));
}
