use std::io::Cursor;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use riad_image::Stage;

use super::{LINES, hear, read_line};

#[test]
fn progress_is_handed_on_and_last_words_are_kept() {
    let (sender, lines) = sync_channel(200);
    sender.send("RIAD-PROGRESS 3/90 libc6".to_owned()).unwrap();
    for number in 0..100 {
        sender.send(format!("line {number}\u{1b}[0m")).unwrap();
    }
    drop(sender);
    let mut told = Vec::new();
    let heard = hear(&lines, Duration::from_secs(5), &mut |progress| told.push(progress));
    assert!(!heard.is_silent);
    assert_eq!(heard.last.len(), LINES);
    assert_eq!(heard.last.back().map(String::as_str), Some("line 99"));
    let [progress] = &told[..] else { panic!("{told:?}") };
    assert_eq!((progress.stage, progress.done, progress.total), (Stage::Configure, 3, 90));
    assert_eq!(progress.message, "libc6");
}

#[test]
fn silence_is_noticed() {
    let (_sender, lines) = sync_channel(1);
    assert!(hear(&lines, Duration::from_millis(5), &mut |_| {}).is_silent);
}

#[test]
fn a_line_without_end_is_cut() {
    let mut reader = Cursor::new([vec![b'x'; 10_000], b"\nlast".to_vec()].concat());
    let mut lines = Vec::new();
    while let Some(line) = read_line(&mut reader) {
        lines.push(line.len());
    }
    assert_eq!(lines, [4096, 4096, 1808, 4]);
}
