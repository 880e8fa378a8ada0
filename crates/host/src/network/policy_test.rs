use super::*;

fn rule(text: &str) -> Rule {
    text.parse().unwrap()
}

fn add(text: &str, at: Option<usize>) -> RuleChange {
    RuleChange::Add { rule: rule(text), at }
}

#[test]
fn rules_come_and_go_at_their_places() {
    let mut rules = Rules::default();
    let mut change = |change| apply(&change, &mut rules, "dev").map(|()| rules.written());
    assert_eq!(change(add("deny any", None)).unwrap(), ",deny=any");
    assert_eq!(change(add("allow any:53", Some(1))).unwrap(), ",allow=any:53,deny=any");
    assert_eq!(
        change(add("deny udp any", Some(3))).unwrap(),
        ",allow=any:53,deny=any,deny=udp any"
    );
    assert_eq!(change(RuleChange::Remove(2)).unwrap(), ",allow=any:53,deny=udp any");
    assert_eq!(
        change(RuleChange::Default(Verdict::Deny)).unwrap(),
        ",default=deny,allow=any:53,deny=udp any"
    );
    for wrong in [RuleChange::Remove(0), RuleChange::Remove(3), add("deny any", Some(4))] {
        let error = change(wrong).unwrap_err().to_string();
        assert!(error.contains("there are 2") && error.contains("policy dev"), "{error}");
    }
    rules.rules = vec![rule("deny any:25"); MOST_RULES];
    let error = apply(&add("deny any", None), &mut rules, "dev").unwrap_err().to_string();
    assert!(error.contains("1024"), "{error}");
}

#[test]
fn only_the_network_user_has_rules() {
    assert!(is_user("user,deny=any") && !is_user("none") && !is_user("tap=t"));
    let error = of(&Network::None).unwrap_err().to_string();
    assert!(error.contains("'none'"), "{error}");
}
