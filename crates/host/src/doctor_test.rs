use super::{Verdict, available_memory, examine};

#[test]
fn memory_is_read_from_meminfo() {
    let text = "MemTotal:       16 kB\nMemAvailable:   2048 kB\nBuffers: 1 kB\n";
    assert_eq!(available_memory(text), Some(2 << 20));
    assert_eq!(available_memory("MemTotal: 1 kB"), None);
    assert_eq!(available_memory("MemAvailable: 99999999999999999999 kB"), None);
}

#[test]
fn whatever_is_not_right_comes_with_advice() {
    for finding in examine() {
        assert_eq!(finding.verdict == Verdict::Ok, finding.advice.is_none(), "{finding:?}");
        assert!(!finding.found.is_empty());
    }
}
