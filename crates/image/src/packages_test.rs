use proptest::prelude::*;

use super::*;

/// A paragraph of an index, with the fields that must be there.
pub(crate) fn stanza(name: &str, version: &str, more: &str) -> String {
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}.deb\n\
         Size: 1\nSHA256: {}\n{more}\n",
        "0".repeat(64)
    )
}

fn set(text: &str) -> PackageSet {
    let packages = parse_packages(text.as_bytes(), 0, "amd64").expect("well formed");
    PackageSet::new("amd64", packages).expect("well formed")
}

#[test]
fn the_highest_version_of_a_name_wins() {
    let text = [stanza("a", "1.9", ""), stanza("a", "1.10", ""), stanza("a", "1.2", "")].join("\n");
    let set = set(&text);
    assert_eq!(set.len(), 1);
    assert_eq!(set.get("a").expect("there").version.as_str(), "1.10");
}

#[test]
fn other_architectures_are_left_out() {
    let text = stanza("a", "1", "").replace("amd64", "arm64");
    assert!(set(&text).is_empty());
    let text = stanza("a", "1", "").replace("amd64", "all");
    assert_eq!(set(&text).len(), 1);
}

#[test]
fn providers_are_found_by_priority_then_name() {
    let text = [
        stanza("zawk", "1", "Provides: awk\n"),
        stanza("mawk", "1", "Priority: required\nProvides: awk\n"),
        stanza("gawk", "1", "Provides: awk (= 5)\n"),
    ]
    .join("\n");
    let set = set(&text);
    let names = |field: &str| -> Vec<String> {
        let groups = dependency::parse(field, "amd64").expect("well formed");
        set.meeting(&groups[0].alternatives[0])
            .into_iter()
            .map(|at| set.at(at).name.clone())
            .collect()
    };
    assert_eq!(names("awk"), ["mawk", "gawk", "zawk"]);
    assert_eq!(names("awk (>= 4)"), ["gawk"]);
    assert_eq!(names("awk:amd64"), ["mawk", "gawk", "zawk"]);
    assert!(names("awk:arm64").is_empty());
    assert!(names("nothing").is_empty());
}

#[test]
fn dangerous_fields_are_refused() {
    for (from, to) in [
        ("pool/a.deb", "../../etc/passwd"),
        ("pool/a.deb", "/etc/passwd"),
        ("Size: 1", "Size: -1"),
        ("Size: 1", "Size: 99999999999999999999"),
        ("SHA256: 00", "SHA256: ../"),
        ("Package: a", "Package: ../a"),
        ("Version: 1", "Version:"),
    ] {
        let text = stanza("a", "1", "").replace(from, to);
        assert!(parse_packages(text.as_bytes(), 0, "amd64").is_err(), "{to}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse_packages(&bytes, 0, "amd64");
    }

    #[test]
    fn damaged_stanzas_are_read_or_refused(at in 0usize..200, byte in any::<u8>()) {
        let mut bytes = stanza("a", "1", "Depends: b, c (>= 1)\n").into_bytes();
        if let Some(b) = bytes.get_mut(at) {
            *b = byte;
        }
        if let Ok(packages) = parse_packages(&bytes, 0, "amd64") {
            let _ = PackageSet::new("amd64", packages);
        }
    }
}
