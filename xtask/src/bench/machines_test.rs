use super::*;

#[test]
fn options_are_read() {
    let options = Options::parse(&["--rounds", "1", "--skip-qemu", "--riad", "/x"]).unwrap();
    assert_eq!((options.rounds, options.riad), (1, Some("/x".into())));
    assert!(options.skip_qemu && !options.skip_disk);
    for words in [&["--rounds"][..], &["--rounds", "many"], &["fast"]] {
        assert!(Options::parse(words).is_err(), "{words:?}");
    }
}

#[test]
fn lines_have_their_bar() {
    let line = Line::new("create", vec![0.030, 0.010, 0.020], 0.050).to_string();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words, ["create", "20.0", "ms", "10.0", "ms", "30.0", "ms", "50.0", "ms"]);
    assert!(Line::new("start", vec![1.0], f64::NAN).to_string().ends_with('-'));
}
