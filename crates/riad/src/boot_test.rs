use super::Escapes;

#[test]
fn ctrl_a_x_ends_the_machine_even_across_reads() {
    let mut escapes = Escapes::default();
    assert_eq!(escapes.filter(b"ls\r\x01"), Some(b"ls\r".to_vec()));
    assert_eq!(escapes.filter(b"x"), None);
}

#[test]
fn other_keys_reach_the_guest() {
    let mut escapes = Escapes::default();
    assert_eq!(escapes.filter(b"\x01\x01x\x01b\x03"), Some(b"\x01x\x01b\x03".to_vec()));
}
