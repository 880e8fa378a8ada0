use std::time::Duration;

use super::Options;
use super::report::Load;

#[test]
fn options_are_read() {
    let words = "--only kernels --rounds 1 --engine soft:interp --skip-qemu --patience 60";
    let words: Vec<&str> = words.split(' ').collect();
    let options = Options::parse(&words).expect("options");
    assert_eq!(options.loads, [Load::Kernels]);
    assert_eq!((options.rounds, options.patience), (1, Duration::from_secs(60)));
    assert_eq!(options.engine, "soft:interp");
    assert!(options.skip_qemu && !options.skip_native);
}

#[test]
fn what_is_no_option_is_refused() {
    for words in [&["--rounds"][..], &["--only", "nothing"], &["--rounds", "many"], &["fast"]] {
        assert!(Options::parse(words).is_err(), "{words:?}");
    }
}
