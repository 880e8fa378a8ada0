use super::{lines, sorted_by};
use crate::args::SortBy;

#[test]
fn keys_sort_as_the_help_says() {
    for (key, sort) in [
        (b'c', Some(SortBy::Cpu)),
        (b'M', Some(SortBy::Memory)),
        (b'd', Some(SortBy::Disk)),
        (b't', Some(SortBy::Network)),
        (b'n', Some(SortBy::Name)),
        (b'x', None),
    ] {
        assert_eq!(sorted_by(key), sort);
    }
}

#[test]
fn a_computer_without_machines_has_a_head_too() {
    let lines = lines(&[], 3, SortBy::Cpu, true);
    assert!(lines[0].contains("0 of 3 machines run") && lines[0].contains("q leaves"), "{lines:?}");
    assert!(lines[2].starts_with("NAME"), "{lines:?}");
}
