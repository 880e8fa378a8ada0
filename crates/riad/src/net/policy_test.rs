use clap::Parser;

use super::*;
use crate::args::{Cli, Verb};
use crate::net::NetVerb;

/// What a command line asks of which machine.
fn asked(words: &str) -> (String, Result<Option<RuleChange>, String>) {
    let words = format!("riad net policy {words}");
    let cli = Cli::try_parse_from(words.split(' ')).unwrap();
    let Verb::Net(NetVerb::Policy(args)) = cli.verb else { panic!("{words}") };
    (args.name.to_string(), change(args.verb.unwrap_or(PolicyVerb::Ls), &args.words, args.at))
}

#[test]
fn a_machine_may_be_called_as_a_word_that_changes_rules() {
    for name in ["dev", "allow", "deny", "default", "rm", "ls", "help"] {
        assert_eq!(asked(name), (name.to_owned(), Ok(None)));
        let removed = Ok(Some(RuleChange::Remove(2)));
        assert_eq!(asked(&format!("{name} rm 2")), (name.to_owned(), removed));
        let (called, added) = asked(&format!("{name} allow --at 1 tcp example.com:443"));
        let Ok(Some(RuleChange::Add { rule, at })) = added else { panic!("{added:?}") };
        assert_eq!((called.as_str(), at), (name, Some(1)));
        assert_eq!(rule.to_string(), "allow tcp example.com:443");
    }
}

#[test]
fn words_that_ask_for_nothing_are_told_what_there_is() {
    for words in
        ["dev allow", "dev default", "dev rm", "dev default maybe", "dev rm two", "dev ls any"]
    {
        assert!(asked(words).1.is_err(), "{words}");
    }
    assert!(asked("dev deny").1.unwrap_err().contains("deny tcp example.com:443"));
    assert!(Cli::try_parse_from(["riad", "net", "policy", "dev", "open", "any"]).is_err());
    // A place is nothing without a rule to put there.
    assert!(asked("dev ls --at 1").1.is_err());
    let denied = Ok(Some(RuleChange::Default(Verdict::Deny)));
    assert_eq!(asked("dev default deny").1, denied);
}
