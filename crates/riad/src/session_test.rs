use std::ffi::{OsStr, OsString};

use super::environment;

fn here(name: &OsStr) -> Option<OsString> {
    (name == "LANG").then(|| "C.UTF-8".into())
}

#[test]
fn variables_are_given_or_taken_from_here() {
    let words = ["A=1", "B=", "C=x=y", "LANG", "NOT_SET_HERE"].map(OsString::from);
    let expected = [("A", "1"), ("B", ""), ("C", "x=y"), ("LANG", "C.UTF-8")]
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    assert_eq!(environment(&words, here).unwrap(), expected);
}

#[test]
fn a_variable_needs_a_name() {
    for word in ["=1", ""] {
        assert!(environment(&[word.into()], here).is_err(), "{word}");
    }
}
