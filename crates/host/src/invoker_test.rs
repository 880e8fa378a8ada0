use super::*;

const PASSWD: &str = "root:x:0:0::/root:/bin/bash\nann:x:1000:1000:Ann:/home/ann:/bin/bash\n\
                      www-data:x:33:33::/:/bin/sh\nAnn.Lee:x:1001:1001::/:/bin/sh\n";

#[test]
fn the_user_is_who_runs_riad_and_root_needs_no_other() {
    let of = |uid| user(uid, PASSWD, Some("env"));
    assert_eq!(of(0), None);
    assert_eq!(of(1000), Some(MachineUser { name: "ann".to_owned(), uid: Some(1000) }));
    assert_eq!(of(33), Some(MachineUser { name: "www-data".to_owned(), uid: None }));
    assert_eq!(of(5000), Some(MachineUser { name: "env".to_owned(), uid: Some(5000) }));
    // What could not be a user in a guest is left out.
    assert_eq!(of(1001), None);
    assert_eq!(user(5000, PASSWD, None), None);
}

#[test]
fn locales_and_time_zones_are_names_and_nothing_else() {
    assert_eq!(locale("de_DE.UTF-8").as_deref(), Some("de_DE.UTF-8"));
    for none in ["C", "POSIX", "a b", "$(id)", "a\nb"] {
        assert_eq!(locale(none), None, "{none}");
    }
    for zone in ["Europe/Berlin", "UTC", "Etc/GMT+5", "America/Argentina/Ushuaia"] {
        assert_eq!(time_zone(zone).as_deref(), Some(zone));
    }
    for none in ["", "/etc/passwd", "../x", "Europe/", "CET-1CEST,M3.5.0", "a b"] {
        assert_eq!(time_zone(none), None, "{none}");
    }
    assert!(parse_locale("").is_err() && parse_locale("C").is_ok());
}

#[test]
fn public_keys_are_read_and_private_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let one = file("b.pub", "# mine\nssh-ed25519 AAAA ann@here\n\nssh-rsa BBBB\n");
    file("a.pub", "ecdsa-sha2-nistp256 CCCC\n");
    file("c.pub", "nothing");
    let private = file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let none = file("none", "hello\n");
    assert_eq!(keys(&one).unwrap(), ["ssh-ed25519 AAAA ann@here", "ssh-rsa BBBB"]);
    let all = keys_in(dir.path());
    assert_eq!(all, ["ecdsa-sha2-nistp256 CCCC", "ssh-ed25519 AAAA ann@here", "ssh-rsa BBBB"]);
    assert!(keys(&private).unwrap_err().to_string().contains("id.pub"));
    assert!(keys(&none).unwrap_err().to_string().contains("ssh-ed25519"));
    assert!(keys(&dir.path().join("nosuch")).unwrap_err().to_string().contains("nosuch"));
    assert!(keys_in(Path::new("/nonexistent")).is_empty());
}
