use super::*;

#[test]
fn conditions_are_named() {
    for (word, condition) in [
        ("running", Condition::Running),
        ("agent", Condition::Agent),
        ("system", Condition::System),
        ("stopped", Condition::Stopped),
        ("file:/a:b", Condition::File("/a:b".to_owned())),
        ("ip", Condition::Ip),
        ("ssh", Condition::Port(22)),
        ("port:8080", Condition::Port(8080)),
    ] {
        assert_eq!(word.parse(), Ok(condition));
    }
    for (word, advice) in [
        ("happy", "file:PATH"),
        ("file:x", "begins with /"),
        ("", "running"),
        ("port:0", "65535"),
        ("port:web", "65535"),
    ] {
        assert!(word.parse::<Condition>().unwrap_err().contains(advice));
    }
}
