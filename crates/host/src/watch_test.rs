use super::{News, channel};

fn heard(lines: &[&str]) -> Vec<News> {
    let (teller, news) = channel();
    let mut on_line = teller.console_line();
    lines.iter().for_each(|line| on_line(line));
    drop((teller, on_line));
    news.iter().collect()
}

#[test]
fn a_panic_is_heard_once_and_made_safe() {
    let line = "[    1.5] Kernel panic - not syncing: VFS: Unable to mount\u{1b}[31m root fs";
    let news = heard(&["[    1.4] fine", line, line]);
    assert!(
        matches!(&news[..], [News::Panic(text)] if text == "VFS: Unable to mount root fs"),
        "{news:?}"
    );
}

#[test]
fn the_agents_last_words_are_heard() {
    let news = heard(&["riad-agent: started", "riad-agent: fatal: no root device"]);
    assert!(matches!(&news[..], [News::Fatal(text)] if text == "no root device"), "{news:?}");
}

#[test]
fn a_guest_cannot_fill_the_channel() {
    let (teller, news) = channel();
    for _ in 0..1000 {
        teller.tell(News::DiskRead);
    }
    drop(teller);
    assert!(news.iter().count() <= 16);
}
