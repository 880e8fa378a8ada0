//! Which addresses the guest was given for which names, as far as rules speak of the names.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Addresses that are remembered.
const MOST: usize = 4096;
/// Rules that an address is remembered for.
const MOST_RULES: usize = 8;
/// An answer counts for at least so long: programs keep addresses longer than name servers say.
const SHORTEST: Duration = Duration::from_secs(300);
/// And for at most so long.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Addresses, by the rules that name them.
#[derive(Debug, Default)]
pub(super) struct Names {
    given: HashMap<IpAddr, Vec<(usize, Duration)>>,
}

impl Names {
    /// The guest was told that `address` stands for the name in `rule`.
    pub(super) fn learn(&mut self, address: IpAddr, rule: usize, now: Duration, ttl: Duration) {
        let until = now + ttl.clamp(SHORTEST, LONGEST);
        if self.given.len() >= MOST && !self.given.contains_key(&address) {
            self.given.retain(|_, rules| rules.iter().any(|(_, until)| *until > now));
            if self.given.len() >= MOST {
                // A name server that makes up addresses harms those who allow its names.
                return;
            }
        }
        let rules = self.given.entry(address).or_default();
        rules.retain(|(known, until)| *known != rule && *until > now);
        if rules.len() < MOST_RULES {
            rules.push((rule, until));
        }
    }

    /// Whether it was.
    pub(super) fn stands_for(&self, address: IpAddr, rule: usize, now: Duration) -> bool {
        let rules = self.given.get(&address);
        rules.is_some_and(|rules| rules.iter().any(|(known, at)| *known == rule && *at > now))
    }

    /// Rules have changed: their numbers mean others now.
    pub(super) fn forget(&mut self) {
        self.given.clear();
    }
}
