//! `--allow`, `--deny` and `--net-default`: whom a machine's guest reaches.

use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use riad_host::network::{Network, NetworkError, Rule, Verdict};

use crate::report::Failure;

const ALLOW: &str = "allow";
const DENY: &str = "deny";
const DEFAULT: &str = "net-default";

/// Rules in the order in which they were given: `--allow` and `--deny` are one list, whose first rule
/// that speaks of somebody counts. A derived struct would have two lists, and not know their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RuleArgs {
    rules: Vec<Rule>,
    default: Option<Verdict>,
}

impl RuleArgs {
    /// The network with these rules behind its own.
    pub(super) fn of(self, network: Network) -> Result<Network, Failure> {
        let Self { rules, default } = self;
        if rules.is_empty() && default.is_none() {
            return Ok(network);
        }
        let Network::User(mut own) = network else {
            let error = NetworkError::NoRules(network.to_string());
            return Err(Failure::Own(error.to_string()));
        };
        own.rules.extend(rules);
        own.default = default.unwrap_or(own.default);
        // Reads what it writes, and so says of too many rules what it says of any.
        let network = Network::User(own).to_string().parse();
        network.map_err(Failure::Own)
    }
}

/// A rule without its verdict, as options and verbs take it.
pub(crate) fn rule(verdict: Verdict, whom: &str) -> Result<Rule, String> {
    let rule = Rule::from_str(&format!("{verdict} {whom}"));
    rule.map_err(|error| error.to_string())
}

impl FromArgMatches for RuleArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |id: &str| {
            let places = matches.indices_of(id).into_iter().flatten();
            let rules = matches.get_many::<Rule>(id).into_iter().flatten().cloned();
            places.zip(rules).collect::<Vec<_>>()
        };
        let mut rules = [given(ALLOW), given(DENY)].concat();
        rules.sort_by_key(|(place, _)| *place);
        let rules = rules.into_iter().map(|(_, rule)| rule).collect();
        Ok(Self { rules, default: matches.get_one(DEFAULT).copied() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for RuleArgs {
    fn augment_args(command: Command) -> Command {
        let rule = |verdict: Verdict, name: &'static str| {
            Arg::new(name)
                .long(name)
                .value_name("RULE")
                .action(ArgAction::Append)
                .value_parser(move |whom: &str| rule(verdict, whom))
        };
        command
            .arg(
                rule(Verdict::Allow, ALLOW)
                    .help("Let the machine reach somebody; may be given several times")
                    .long_help(
                        "Let the machine reach somebody, on the network user; may be given several \
                         times\n\nA RULE is an address, a prefix (10.0.0.0/8), a name (*.example.com) or \
                         any, with tcp, udp or icmp before it and :PORT or :FIRST-LAST behind it if \
                         wanted: 'tcp example.com:443'. Of all that are given with --allow and --deny, \
                         behind those of --net, the first that speaks of somebody counts.",
                    ),
            )
            .arg(
                rule(Verdict::Deny, DENY)
                    .help("Keep the machine from reaching somebody; may be given several times"),
            )
            .arg(
                Arg::new(DEFAULT)
                    .long(DEFAULT)
                    .value_name("VERDICT")
                    .value_parser(Verdict::from_str)
                    .help("What holds for whom no rule speaks of: allow or deny [default: allow]"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
#[path = "rules_test.rs"]
mod tests;
