use proptest::prelude::*;

use super::*;
use crate::packages::parse_packages;

/// A set from lines of `name version; Field: value; ...`.
fn set(lines: &[&str]) -> PackageSet {
    let mut text = String::new();
    for line in lines {
        let mut parts = line.split(';').map(str::trim);
        let (name, version) =
            parts.next().and_then(|head| head.split_once(' ')).expect("name and version");
        text.push_str(&format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: {name}.deb\n\
             Size: 1\nSHA256: {}\n",
            "0".repeat(64)
        ));
        for field in parts {
            text.push_str(field);
            text.push('\n');
        }
        text.push('\n');
    }
    let packages = parse_packages(text.as_bytes(), 0, "amd64").expect("well formed");
    PackageSet::new("amd64", packages).expect("well formed")
}

fn names(set: &PackageSet, wanted: &[&str]) -> Result<Vec<String>, String> {
    let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    match resolve(set, &wanted) {
        Ok(list) => Ok(list.into_iter().map(|c| c.package.name.clone()).collect()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn dependencies_come_along_and_come_first() {
    let set = set(&[
        "a 1; Depends: b, c (>= 2)",
        "b 1; Pre-Depends: d",
        "c 2; Recommends: e",
        "d 1",
        "e 1",
    ]);
    assert_eq!(names(&set, &["a"]).expect("resolves"), ["d", "b", "c", "a"]);
    let wanted = vec!["a".to_owned()];
    let list = resolve(&set, &wanted).expect("resolves");
    let explicit: Vec<_> = list.iter().filter(|c| !c.automatic).map(|c| &c.package.name).collect();
    assert_eq!(explicit, ["a"]);
}

#[test]
fn the_first_alternative_that_can_be_installed_is_taken() {
    let set = set(&[
        "a 1; Depends: x | y | z",
        "x 1; Depends: deep",
        "deep 1; Depends: missing",
        "y 1",
        "z 1",
    ]);
    assert_eq!(names(&set, &["a"]).expect("resolves"), ["y", "a"]);
    // What is there already is preferred to what would be new.
    assert_eq!(names(&set, &["a", "z"]).expect("resolves"), ["z", "a"]);
}

#[test]
fn virtual_packages_are_met_by_their_providers() {
    let set = set(&[
        "a 1; Depends: awk, mta (>= 2)",
        "gawk 1; Provides: awk",
        "mawk 1; Provides: awk; Priority: required",
        "old 1; Provides: mta (= 1)",
        "new 1; Provides: mta (= 2)",
    ]);
    assert_eq!(names(&set, &["a"]).expect("resolves"), ["mawk", "new", "a"]);
}

#[test]
fn a_dependency_that_cannot_be_met_is_explained_to_its_end() {
    let set = set(&["a 1; Depends: b", "b 1; Depends: c (>= 2) | d", "c 1"]);
    let error = names(&set, &["a"]).expect_err("cannot be met");
    assert_eq!(
        error,
        "'a' cannot be installed: a 1 needs b, and b 1 needs c (>= 2) | d, but the archive has c 1"
    );
    let error = names(&set, &["zzz"]).expect_err("unknown");
    assert!(error.contains("no package 'zzz'"), "{error}");
}

#[test]
fn loops_are_fine_and_pre_dependencies_hold_inside_them() {
    let set = set(&["a 1; Pre-Depends: b", "b 1; Depends: a, c", "c 1; Depends: b"]);
    let order = names(&set, &["a"]).expect("resolves");
    let place = |n: &str| order.iter().position(|x| x == n).expect("there");
    assert!(place("b") < place("a"));
    let set = super::tests::set(&["a 1; Pre-Depends: b", "b 1; Pre-Depends: a", "s 1; Depends: s"]);
    assert_eq!(names(&set, &["a", "s"]).expect("resolves").len(), 3);
}

#[test]
fn packages_that_exclude_each_other_are_named() {
    let set = set(&[
        "a 1; Conflicts: mta; Provides: mta",
        "b 1; Provides: mta",
        "c 1; Breaks: d (<< 2)",
        "d 1",
    ]);
    // A package does not conflict with the name it provides itself.
    assert!(names(&set, &["a"]).is_ok());
    let error = names(&set, &["a", "b"]).expect_err("conflict");
    assert!(error.starts_with("a and b cannot be installed together"), "{error}");
    assert!(names(&set, &["c", "d"]).is_err());
}

#[test]
fn a_very_long_chain_does_not_exhaust_the_stack() {
    let lines: Vec<String> = (0..20_000).map(|i| format!("p{i} 1; Depends: p{}", i + 1)).collect();
    let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    lines.push("p20000 1");
    let set = set(&lines);
    assert_eq!(names(&set, &["p0"]).expect("resolves").len(), 20_001);
}

proptest! {
    /// Whatever the graph: the result is closed under dependencies, or there is an error.
    #[test]
    fn results_are_closed(deps in proptest::collection::vec(
        (proptest::collection::vec(0usize..14, 0..4), proptest::bool::ANY), 12)
    ) {
        let lines: Vec<String> = deps.iter().enumerate().map(|(i, (to, alt))| {
            let sep = if *alt { " | " } else { ", " };
            let to: Vec<String> = to.iter().map(|t| format!("p{t}")).collect();
            format!("p{i} 1; Depends: {}", to.join(sep))
        }).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let set = set(&lines);
        let wanted = vec!["p0".to_owned()];
        if let Ok(list) = resolve(&set, &wanted) {
            let chosen: Vec<usize> =
                list.iter().filter_map(|c| set.index_of(&c.package.name)).collect();
            for c in &list {
                for group in c.package.depends("amd64").expect("well formed") {
                    let met = group.alternatives.iter()
                        .any(|r| set.meeting(r).iter().any(|m| chosen.contains(m)));
                    prop_assert!(met);
                }
            }
        }
    }
}
