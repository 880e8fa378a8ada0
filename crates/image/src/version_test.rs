use std::process::Command;

use proptest::prelude::*;

use super::*;

/// Triples of a version, the relation, and another version.
const KNOWN: &[(&str, Ordering, &str)] = &[
    ("1.0", Ordering::Equal, "1.00"),
    ("1.0", Ordering::Equal, "0:1.0"),
    ("1.0", Ordering::Equal, "1.0-0"),
    ("1.0~rc1", Ordering::Less, "1.0"),
    ("1.0~~", Ordering::Less, "1.0~~a"),
    ("1.0~~a", Ordering::Less, "1.0~"),
    ("1.0~", Ordering::Less, "1.0"),
    ("1.0", Ordering::Less, "1.0a"),
    ("1.0a", Ordering::Less, "1.0+"),
    ("1.9", Ordering::Less, "1.10"),
    ("1:0.1", Ordering::Greater, "999"),
    ("2.36-9+deb12u14", Ordering::Greater, "2.36-9+deb12u9"),
    ("6.1.192-2", Ordering::Greater, "6.1.176-1"),
    ("1.2-3-4", Ordering::Greater, "1.2-3"),
    ("5.2.15-2+b13", Ordering::Greater, "5.2.15-2"),
    ("3.0.19-1~deb12u2", Ordering::Less, "3.0.19-1"),
    ("99999999999999999999999999:1", Ordering::Greater, "1:1"),
    ("1.99999999999999999999999999", Ordering::Greater, "1.2"),
    ("", Ordering::Less, "0a"),
];

#[test]
fn known_pairs_are_ordered_both_ways() {
    for (a, order, b) in KNOWN {
        let (a, b) = (Version::from(*a), Version::from(*b));
        assert_eq!(a.cmp(&b), *order, "{a} against {b}");
        assert_eq!(b.cmp(&a), order.reverse(), "{b} against {a}");
    }
}

/// Asks dpkg, when there is one, about many random pairs.
#[test]
fn dpkg_agrees() {
    if Command::new("dpkg").arg("--version").output().is_err() {
        return;
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let part = "[0-9][0-9a-c.+~]{0,5}";
    let version = (proptest::option::of(0u8..3), part, proptest::option::of("[0-9a-b+~]{1,3}"))
        .prop_map(|(epoch, upstream, revision)| {
            let epoch = epoch.map(|e| format!("{e}:")).unwrap_or_default();
            let revision = revision.map(|r| format!("-{r}")).unwrap_or_default();
            format!("{epoch}{upstream}{revision}")
        });
    for _ in 0..150 {
        let tree = (&version, &version).new_tree(&mut runner).expect("a value");
        let (a, b) = proptest::strategy::ValueTree::current(&tree);
        let word = match Version::from(a.as_str()).cmp(&Version::from(b.as_str())) {
            Ordering::Less => "lt",
            Ordering::Equal => "eq",
            Ordering::Greater => "gt",
        };
        let status = Command::new("dpkg")
            .args(["--compare-versions", &a, word, &b])
            .status()
            .expect("dpkg runs");
        assert!(status.success(), "dpkg disagrees with {a} {word} {b}");
    }
}

proptest! {
    #[test]
    fn order_is_total_for_any_text(a in ".{0,12}", b in ".{0,12}", c in ".{0,12}") {
        let (a, b, c) = (Version::from(&*a), Version::from(&*b), Version::from(&*c));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
    }
}
