//! `riad net policy`: whom a machine's guest reaches, shown and changed.

use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};
use riad_host::machines::{Folder, Machines, Name};
use riad_host::network::{Counts, HostAccess, RuleChange, Rules, Verdict};
use serde::Serialize;

use crate::args::{Format, rule};
use crate::report::{Failure, columns, show_as};

/// Show or change whom a machine reaches: at once if it runs, and from its next start on
///
/// Rules are looked at in their order, the first that speaks of somebody counts, and if none does, the
/// default. What a changed rule no longer lets through is cut off. A RULE is an address, a prefix
/// (10.0.0.0/8), a name (*.example.com) or any, with tcp, udp or icmp before it and :PORT or
/// :FIRST-LAST behind it if wanted.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  riad net policy dev\n  riad net policy dev allow tcp example.com:443\n  riad net policy dev deny --at 1 10.0.0.0/8\n  riad net policy dev default deny\n  riad net policy dev rm 2"
)]
pub(crate) struct PolicyArgs {
    /// The machine's name
    name: Name,

    #[command(subcommand)]
    verb: Option<PolicyVerb>,
}

#[derive(Debug, Subcommand)]
enum PolicyVerb {
    /// Let it reach somebody
    Allow(RuleWords),
    /// Keep it from reaching somebody
    Deny(RuleWords),
    /// Say what holds for whom no rule speaks of
    Default {
        /// allow or deny
        #[arg(value_parser = Verdict::from_str)]
        verdict: Verdict,
    },
    /// Remove a rule
    Rm {
        /// Its number, as `ls` shows it
        number: usize,
    },
    /// List the rules; so does no verb at all
    Ls,
}

/// A rule without its verdict.
#[derive(Debug, Args)]
struct RuleWords {
    /// Who, as in tcp example.com:443
    #[arg(required = true, value_name = "RULE")]
    words: Vec<String>,

    /// Put it there in the order [default: last]
    #[arg(long, value_name = "N")]
    at: Option<usize>,
}

impl RuleWords {
    fn change(self, verdict: Verdict) -> Result<RuleChange, Failure> {
        let Self { words, at } = self;
        let rule = rule(verdict, &words.join(" ")).map_err(Failure::Own)?;
        Ok(RuleChange::Add { rule, at })
    }
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
    let PolicyArgs { name, verb } = args;
    let folder = Machines::open()?.get(&name)?;
    let change = match verb {
        Some(PolicyVerb::Allow(words)) => words.change(Verdict::Allow)?,
        Some(PolicyVerb::Deny(words)) => words.change(Verdict::Deny)?,
        Some(PolicyVerb::Default { verdict }) => RuleChange::Default(verdict),
        Some(PolicyVerb::Rm { number }) => RuleChange::Remove(number),
        Some(PolicyVerb::Ls) | None => {
            let (rules, counts) = folder.rules()?;
            let shown = Shown::new(&rules, counts);
            show_as(&shown, format, || table(&shown, &folder))?;
            return Ok(ExitCode::SUCCESS);
        }
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
