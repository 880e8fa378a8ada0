use proptest::prelude::*;

use super::*;

fn show(field: &str) -> Vec<String> {
    parse(field, "amd64").expect("well formed").iter().map(ToString::to_string).collect()
}

#[test]
fn fields_of_real_packages_are_read() {
    assert_eq!(
        show("libc6 (>= 2.34), debconf (>= 0.5) | debconf-2.0,perl:any\n , init-system-helpers"),
        ["libc6 (>= 2.34)", "debconf (>= 0.5) | debconf-2.0", "perl:any", "init-system-helpers"]
    );
    assert_eq!(show("gcc-12-base (= 12.2.0-14+deb12u1)"), ["gcc-12-base (= 12.2.0-14+deb12u1)"]);
    assert_eq!(show("a(>>1),b (<<2) , c (<= 1:2-3)"), ["a (>> 1)", "b (<< 2)", "c (<= 1:2-3)"]);
    assert!(show("").is_empty());
}

#[test]
fn architecture_lists_and_profiles_are_applied() {
    assert_eq!(
        show("a [amd64], b [arm64], c [!amd64], d [!arm64 !i386], e <!nocheck>"),
        ["a", "d", "e"]
    );
    assert_eq!(show("a [i386] | b"), ["b"]);
    assert_eq!(show("a [linux-any]"), ["a"]);
}

#[test]
fn malformed_fields_are_named() {
    for bad in ["(>= 1)", "a (>= )", "a (~ 1)", "a (>= 1", "a b", "$x", "a |", "a [amd64"] {
        assert!(parse(bad, "amd64").is_err(), "{bad}");
    }
}

#[test]
fn versions_of_provided_names_count_only_when_given() {
    let groups = parse("x (>= 2), y", "amd64").expect("well formed");
    let x = &groups[0].alternatives[0];
    assert!(!x.accepts_provided(None));
    assert!(!x.accepts_provided(Some(&Version::from("1"))));
    assert!(x.accepts_provided(Some(&Version::from("2"))));
    assert!(groups[1].alternatives[0].accepts_provided(None));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = parse(&text, "amd64");
    }
}
