//! Whom a named machine's guest may reach: changed while it runs, and for its next starts.

use riad_network::user::policy::{MOST_RULES, Rule, Verdict};

use super::{Network, NetworkError, Rules};
use crate::Error;
use crate::journal::Event;
use crate::machines::Folder;
use crate::process::Connection;

/// From when on what was changed counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Now, and at every later start.
    Now,
    /// From the machine's next start on.
    NextStart,
}

/// A change of a machine's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleChange {
    /// One more.
    Add {
        /// The rule.
        rule: Rule,
        /// Which one it becomes, from 1; `None`: the last.
        at: Option<usize>,
    },
    /// One fewer: its number, from 1.
    Remove(usize),
    /// What is true of whom no rule speaks of.
    Default(Verdict),
}

impl Folder {
    /// Whom the guest may reach, as it is kept for the machine's starts; and whether that is what
    /// holds now.
    ///
    /// # Errors
    /// [`NetworkError::NoRules`].
    pub fn rules(&self) -> Result<(Rules, Counts), Error> {
        let rules = of(&self.config()?.network)?;
        let mut counts = Counts::NextStart;
        if self.is_alive()? {
            let now = Connection::open(self)?.network()?.network;
            if now == Network::User(rules.clone()).to_string() {
                counts = Counts::Now;
            }
        }
        Ok((rules, counts))
    }

    /// Changes whom the guest may reach: at once if it runs, and from its next start on in any case.
    /// All that is kept holds then, also what was changed by `riad set --net` since the start.
    ///
    /// # Errors
    /// [`NetworkError::NoRules`], [`NetworkError::NoSuchRule`], [`NetworkError::TooManyRules`].
    pub fn change_rules(&self, change: &RuleChange) -> Result<(Rules, Counts), Error> {
        let _lock = self.lock()?;
        let mut config = self.config()?;
        let mut rules = of(&config.network)?;
        apply(change, &mut rules, self.name().as_str())?;
        // Its network is another one still, where that was changed since its start.
        let now = self.is_alive()? && is_user(&Connection::open(self)?.network()?.network);
        let network = Network::User(rules.clone());
        let from = std::mem::replace(&mut config.network, network).to_string();
        self.write_config(&config)?;
        if now {
            Connection::open(self)?.policy()?;
        }
        let counts = if now { Counts::Now } else { Counts::NextStart };
        let when = if now { "now" } else { "next start" }.to_owned();
        let (what, to) = ("net".to_owned(), config.network.to_string());
        self.record(&Event::Set { what, from, to, when });
        Ok((rules, counts))
    }
}

fn of(network: &Network) -> Result<Rules, NetworkError> {
    match network {
        Network::User(rules) => Ok(rules.clone()),
        other => Err(NetworkError::NoRules(other.to_string())),
    }
}

fn is_user(network: &str) -> bool {
    matches!(network.parse(), Ok(Network::User(_)))
}

/// Changes the rules of the machine `name`.
fn apply(change: &RuleChange, rules: &mut Rules, name: &str) -> Result<(), NetworkError> {
    let count = rules.rules.len();
    // The place of a rule that is there, or with one more, of one that would be.
    let place = |number: usize, places: usize| match number.checked_sub(1) {
        Some(place) if place < places => Ok(place),
        _ => Err(NetworkError::NoSuchRule { number, count, name: name.to_owned() }),
    };
    match change {
        RuleChange::Add { .. } if count >= MOST_RULES => return Err(NetworkError::TooManyRules),
        RuleChange::Add { rule, at } => {
            let place = at.map_or(Ok(count), |number| place(number, count + 1))?;
            rules.rules.insert(place, rule.clone());
        }
        RuleChange::Remove(number) => {
            rules.rules.remove(place(*number, count)?);
        }
        RuleChange::Default(verdict) => rules.default = *verdict,
    }
    Ok(())
}

#[cfg(test)]
#[path = "policy_test.rs"]
mod tests;
