use super::*;

#[test]
fn nameservers_are_read_as_the_c_library_reads_them() {
    let text = "# a comment\nnameserver 127.0.0.53\n  nameserver\t::1\nnameserver fe80::1%eth0\n\
                search example.com\nnameserver\nnameservers 10.0.0.1\nnameserver 10.0.0.1 trailing\n\
                nameserver 10.0.0.2\n";
    let expected = ["127.0.0.53:53", "[::1]:53", "10.0.0.1:53"];
    assert_eq!(parse(text), expected.map(|at| at.parse().unwrap()));
    assert_eq!(parse("options edns0\n"), ["127.0.0.1:53".parse().unwrap()]);
}

#[test]
fn the_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
    let mut resolv = Resolv::new(path.clone());
    assert_eq!(resolv.resolvers(), ["10.0.0.1:53".parse().unwrap()]);
    // As NetworkManager and systemd-resolved do it: a new file takes the old one's name.
    let next = folder.path().join("next");
    std::fs::write(&next, "nameserver 10.0.0.2\n").unwrap();
    std::fs::rename(&next, &path).unwrap();
    assert_eq!(resolv.resolvers(), ["10.0.0.2:53".parse().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(resolv.resolvers(), ["127.0.0.1:53".parse().unwrap()]);
}
