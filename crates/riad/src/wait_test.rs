use super::*;

#[test]
fn conditions_are_named() {
    for (word, condition) in [
        ("running", Condition::Running),
        ("agent", Condition::Agent),
        ("system", Condition::System),
        ("stopped", Condition::Stopped),
        ("file:/a:b", Condition::File("/a:b".to_owned())),
    ] {
        assert_eq!(word.parse(), Ok(condition));
    }
    for (word, advice) in [("ip", "file:PATH"), ("file:x", "begins with /"), ("", "running")] {
        assert!(word.parse::<Condition>().unwrap_err().contains(advice));
    }
}
