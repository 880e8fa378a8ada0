use super::*;

#[test]
fn a_name_is_not_used_twice() {
    let mut table = Table::new(Kind::Udp, 2);
    let next = table.next();
    let first = table.insert('a').unwrap();
    assert_eq!(next, Some(first));
    assert_eq!(Kind::of(first), Some(Kind::Udp));
    let second = table.insert('b').unwrap();
    assert_eq!(table.insert('c'), Err('c'));
    assert!(table.is_full());
    assert_eq!(table.remove(first), Some('a'));
    let third = table.insert('c').unwrap();
    assert_ne!(first, third);
    assert_eq!(
        (table.get(first), table.get(second), table.get(third)),
        (None, Some(&'b'), Some(&'c'))
    );
    assert_eq!(table.remove(first), None);
    assert_eq!(table.tokens().count(), 2);
}
