//! `riad net policy`: whom a machine's guest reaches, shown and changed.

use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use riad_host::machines::{Folder, Machines, Name};
use riad_host::network::{Counts, HostAccess, RuleChange, Rules, Verdict};
use serde::Serialize;

use crate::args::{Format, rule};
use crate::report::{Failure, columns, show_as};

/// Show or change whom a machine reaches: at once if it runs, and from its next start on
///
/// `allow RULE` and `deny RULE` add a rule, `rm N` removes one, `default allow` and `default deny` say
/// what holds for whom no rule speaks of, and `ls` lists them, as no word at all does. Rules are looked
/// at in their order, and the first that speaks of somebody counts. What a changed rule no longer lets
/// through is cut off. A RULE is an address, a prefix (10.0.0.0/8), a name (*.example.com) or any, with
/// tcp, udp or icmp before it and :PORT or :FIRST-LAST behind it if wanted.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad net policy dev\n  riad net policy dev allow tcp example.com:443\n  riad net policy dev deny --at 1 10.0.0.0/8\n  riad net policy dev default deny\n  riad net policy dev rm 2"
)]
pub(crate) struct PolicyArgs {
    /// The machine's name
    name: Name,

    // No subcommands: a machine may be called as one of them, and its name comes first.
    /// What to do
    #[arg(value_enum, value_name = "CHANGE")]
    verb: Option<PolicyVerb>,

    /// With what: a rule, as in tcp example.com:443, a rule's number, or allow or deny
    words: Vec<String>,

    /// Put the rule there in the order [default: last]
    #[arg(long, value_name = "N")]
    at: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PolicyVerb {
    /// Let it reach somebody
    Allow,
    /// Keep it from reaching somebody
    Deny,
    /// Say what holds for whom no rule speaks of
    Default,
    /// Remove a rule
    Rm,
    /// List the rules
    Ls,
}

/// The change that words ask for; `None` when they ask to see the rules.
fn change(
    verb: PolicyVerb,
    words: &[String],
    at: Option<usize>,
) -> Result<Option<RuleChange>, String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if at.is_some() && !matches!(verb, PolicyVerb::Allow | PolicyVerb::Deny) {
        return Err("--at says where a rule goes that allow or deny adds".to_owned());
    }
    let add = |verdict| match &words[..] {
        [] => Err(format!("{verdict} whom? As in: {verdict} tcp example.com:443")),
        words => rule(verdict, &words.join(" ")).map(|rule| RuleChange::Add { rule, at }),
    };
    Ok(Some(match (verb, &words[..]) {
        (PolicyVerb::Allow, _) => add(Verdict::Allow)?,
        (PolicyVerb::Deny, _) => add(Verdict::Deny)?,
        (PolicyVerb::Default, [verdict]) => RuleChange::Default(Verdict::from_str(verdict)?),
        (PolicyVerb::Default, _) => return Err("write default allow, or default deny".to_owned()),
        (PolicyVerb::Rm, [number]) => {
            let wrong = |_| format!("'{number}' is no rule's number: `ls` shows them");
            RuleChange::Remove(number.parse().map_err(wrong)?)
        }
        (PolicyVerb::Rm, _) => {
            return Err("write rm and a rule's number, as ls shows it".to_owned());
        }
        (PolicyVerb::Ls, []) => return Ok(None),
        (PolicyVerb::Ls, _) => return Err("ls takes nothing more".to_owned()),
    }))
}

/// Rules as a program is told of them; keys are only ever added.
#[derive(Debug, Serialize)]
struct Shown {
    rules: Vec<String>,
    default: String,
    /// Ports of this computer's loopback that are open, or `all`.
    host: Vec<String>,
    /// `now` or `next start`.
    counts: &'static str,
}

pub(crate) fn policy(args: PolicyArgs, format: Option<Format>) -> Result<ExitCode, Failure> {
    let PolicyArgs { name, verb, words, at } = args;
    let change = change(verb.unwrap_or(PolicyVerb::Ls), &words, at).map_err(Failure::Own)?;
    let folder = Machines::open()?.get(&name)?;
    let Some(change) = change else {
        let (rules, counts) = folder.rules()?;
        let shown = Shown::new(&rules, counts);
        show_as(&shown, format, || table(&shown, &folder))?;
        return Ok(ExitCode::SUCCESS);
    };
    let (_, counts) = folder.change_rules(&change)?;
    let what = match change {
        RuleChange::Add { rule, .. } => format!("{rule}: counts"),
        RuleChange::Remove(number) => format!("rule {number} is gone: counts"),
        RuleChange::Default(verdict) => format!("{verdict} unless a rule says otherwise: counts"),
    };
    match counts {
        Counts::Now => eprintln!("riad: {what} now"),
        Counts::NextStart => eprintln!("riad: {what} from the next start of {name} on"),
    }
    Ok(ExitCode::SUCCESS)
}

impl Shown {
    fn new(rules: &Rules, counts: Counts) -> Self {
        Self {
            rules: rules.rules.iter().map(ToString::to_string).collect(),
            default: rules.default.to_string(),
            host: match &rules.host {
                HostAccess::Refused => Vec::new(),
                HostAccess::Ports(ports) => ports.iter().map(ToString::to_string).collect(),
                HostAccess::All => vec!["all".to_owned()],
            },
            counts: match counts {
                Counts::Now => "now",
                Counts::NextStart => "next start",
            },
        }
    }
}

fn table(shown: &Shown, folder: &Folder) -> String {
    let lines = (1..).zip(&shown.rules).map(|(n, rule): (usize, _)| [n.to_string(), rule.clone()]);
    let head = ["N".to_owned(), "RULE".to_owned()];
    let default = ["-".to_owned(), format!("{} any, where no rule says otherwise", shown.default)];
    let mut text = columns(&[head].into_iter().chain(lines).chain([default]).collect::<Vec<_>>());
    if !shown.host.is_empty() {
        let ports = shown.host.join(", ");
        text.push_str(&format!("Open on this computer, as host.riad.internal: {ports}\n"));
    }
    if shown.counts != "now" {
        text.push_str(&format!("This counts from the next start of {} on.\n", folder.name()));
    }
    text
}

#[cfg(test)]
#[path = "policy_test.rs"]
mod tests;
