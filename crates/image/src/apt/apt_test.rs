use std::fs;

use super::*;

fn host(files: &[(&str, &str)]) -> HostApt {
    let root = tempfile::tempdir().expect("a directory");
    for (path, text) in files {
        let path = root.path().join("etc/apt").join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        fs::write(path, text).expect("written");
    }
    HostApt::read(root.path())
}

const DEB822: &str = "Types: deb\n# a comment\nURIs: http://mirror.test/debian/\n\
    Suites: bookworm bookworm-updates\nComponents: main contrib\n\
    Signed-By: /usr/share/keyrings/k.gpg\n\nTypes: deb deb-src\n\
    URIs: http://sec.test/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
    Types: deb\nEnabled: no\nURIs: http://off.test/\nSuites: trixie\nComponents: main\n";

#[test]
fn deb822_sources_give_a_plan() {
    let host = host(&[("sources.list.d/debian.sources", DEB822)]);
    let plan = host.plan(None, None).expect("a plan");
    assert_eq!(plan.suite, Suite::Bookworm);
    let list: Vec<_> = plan.archives.iter().map(|a| (a.base.as_str(), a.suite.as_str())).collect();
    assert_eq!(
        list,
        [
            ("http://mirror.test/debian", "bookworm"),
            ("http://mirror.test/debian", "bookworm-updates"),
            ("http://sec.test/debian-security", "bookworm-security"),
        ]
    );
    assert!(plan.archives.iter().all(|a| !a.optional));
    assert_eq!(
        plan.archives[0].signed_by,
        SignedBy::Files(vec![PathBuf::from("/usr/share/keyrings/k.gpg")])
    );
}

#[test]
fn another_release_comes_from_the_same_mirror() {
    let host = host(&[("sources.list.d/debian.sources", DEB822)]);
    let plan = host.plan(Some(Suite::Trixie), None).expect("a plan");
    let list: Vec<_> = plan.archives.iter().map(|a| (a.suite.as_str(), a.optional)).collect();
    assert_eq!(list, [("trixie", false), ("trixie-updates", true), ("trixie-security", true)]);
    let plan = host.plan(Some(Suite::Sid), None).expect("a plan");
    assert_eq!(plan.archives.len(), 1);
}

#[test]
fn one_line_sources_with_options_give_a_plan() {
    let host = host(&[(
        "sources.list",
        "# deb http://commented.test/debian bookworm main\n\
         deb cdrom:[Debian]/ trixie main\n\
         deb-src http://mirror.test/debian trixie main\n\
         deb [ arch=amd64 signed-by=/a.gpg,/b.gpg ] https://mirror.test/debian trixie main # x\n\
         deb https://mirror.test/debian-security trixie-security main\n",
    )]);
    let plan = host.plan(None, None).expect("a plan");
    assert_eq!(plan.suite, Suite::Trixie);
    assert_eq!(plan.archives.len(), 2);
    assert_eq!(
        plan.archives[0].signed_by,
        SignedBy::Files(vec![PathBuf::from("/a.gpg"), PathBuf::from("/b.gpg")])
    );
    assert_eq!(plan.archives[1].suite, "trixie-security");
}

#[test]
fn a_host_that_is_not_debian_is_told_what_to_pass() {
    for files in
        [&[][..], &[("sources.list", "deb http://mirror.test/ubuntu noble main universe\n")][..]]
    {
        let error = host(files).plan(None, None).expect_err("no mirror").to_string();
        assert!(error.contains("--mirror") && error.contains("RIAD_DEBIAN_MIRROR"), "{error}");
    }
}

#[test]
fn a_named_mirror_wins_and_its_updates_are_optional() {
    let host = host(&[("sources.list.d/debian.sources", DEB822)]);
    let plan = host.plan(None, Some("http://other.test/debian/")).expect("a plan");
    let list: Vec<_> = plan.archives.iter().map(|a| (a.url("x"), a.optional)).collect();
    assert_eq!(
        list,
        [
            ("http://other.test/debian/x".to_owned(), false),
            ("http://other.test/debian/x".to_owned(), true),
            ("http://other.test/debian-security/x".to_owned(), true),
        ]
    );
    assert!(host.plan(None, Some("ftp://other.test/")).is_err());
    assert!(host.plan(None, Some("")).is_err());
}

#[test]
fn keys_inside_a_source_are_kept() {
    let entries = parse_deb822_sources(
        "Types: deb\nURIs: http://m.test\nSuites: trixie\nComponents: main\nSigned-By:\n \
         -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abcd\n -----END PGP PUBLIC KEY BLOCK-----\n",
    );
    let SignedBy::Inline(text) = &entries[0].signed_by else { panic!("not inline") };
    assert!(text.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabcd\n"));
}

#[test]
fn proxies_are_found_in_both_notations() {
    let conf = parse_conf(
        "// c\n# c\n/* c */ Acquire::http::Proxy \"http://p.test:3128/\";\n\
         Acquire { https { Proxy \"http://q.test\"; Proxy::Direct.test \"DIRECT\"; }; Retries 3; };\n\
         APT::NeverAutoRemove { \"^x$\"; };",
    );
    assert_eq!(conf.proxy_for("http://a.test/x"), Some("http://p.test:3128/"));
    assert_eq!(conf.proxy_for("https://a.test/x"), Some("http://q.test"));
    assert_eq!(conf.proxy_for("https://u@direct.test:8/x"), Some("DIRECT"));
    assert_eq!(conf.get("acquire::retries"), Some("3"));
    assert_eq!(parse_conf("} ; { \" /*").proxy_for("http://a"), None);
}

proptest::proptest! {
    #[test]
    fn any_text_is_taken(text in "\\PC{0,200}") {
        let _ = (parse_conf(&text), parse_one_line_sources(&text), parse_deb822_sources(&text));
    }
}
