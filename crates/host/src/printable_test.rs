use super::printable;

#[test]
fn plain_text_stays() {
    assert_eq!(printable("[    0.1] Linux version 6.1, é"), "[    0.1] Linux version 6.1, é");
}

#[test]
fn what_a_terminal_obeys_goes() {
    assert_eq!(printable("a\u{1b}[31mb\u{1b}[0mc"), "abc");
    assert_eq!(printable("\u{1b}]0;title\u{7}x\r\n"), "]0;titlex");
    assert_eq!(printable("a\u{202e}b\u{9b}31mc"), "ab31mc");
    assert_eq!(printable("a\u{1b}["), "a");
}

#[test]
fn long_lines_are_cut() {
    let shown = printable(&"x".repeat(100_000));
    assert_eq!(shown.chars().count(), 513);
    assert!(shown.ends_with('…'));
}
