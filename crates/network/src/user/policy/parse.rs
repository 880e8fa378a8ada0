//! Rules as people write them: `allow tcp example.com:443`, `deny 10.0.0.0/8`, `deny udp any:53`.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::{Cidr, Protocol, Rule, Target, Verdict};

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{rule:?} is no rule: {what}; after allow or deny come tcp, udp or icmp if not all, and an \
     address, a prefix (10.0.0.0/8), a name (*.example.com) or any, with :PORT or :FIRST-LAST if not \
     all ports"
)]
pub struct PolicyError {
    /// What was written.
    pub rule: String,
    /// What does not fit.
    pub what: &'static str,
}

impl FromStr for Rule {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        rule(text).map_err(|what| PolicyError { rule: text.to_owned(), what })
    }
}

fn rule(text: &str) -> Result<Rule, &'static str> {
    let mut words = text.split_whitespace();
    let verdict = match words.next() {
        Some("allow") => Verdict::Allow,
        Some("deny") => Verdict::Deny,
        _ => return Err("it begins with neither allow nor deny"),
    };
    let mut word = words.next().ok_or("it does not say who")?;
    let protocol = match word {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "icmp" => Some(Protocol::Icmp),
        _ => None,
    };
    if protocol.is_some() {
        word = words.next().unwrap_or("any");
    }
    if words.next().is_some() {
        return Err("there is more after who it is about");
    }
    let (who, ports) = split(word)?;
    if ports.is_some() && protocol == Some(Protocol::Icmp) {
        return Err("icmp has no ports");
    }
    Ok(Rule { verdict, target: target(who)?, protocol, ports })
}

/// Splits off the ports: those of an IPv6 address stand behind its brackets.
fn split(word: &str) -> Result<(&str, Option<RangeInclusive<u16>>), &'static str> {
    let (who, ports) = if let Some(inner) = word.strip_prefix('[') {
        let (who, rest) = inner.split_once(']').ok_or("the bracket is not closed")?;
        match rest.strip_prefix(':') {
            Some(ports) => (who, Some(ports)),
            None if rest.is_empty() => (who, None),
            None => return Err("there is something else than a port behind the bracket"),
        }
    } else if word.matches(':').count() == 1 {
        word.split_once(':').map_or((word, None), |(who, ports)| (who, Some(ports)))
    } else {
        (word, None)
    };
    let number = |text: &str| text.parse::<u16>().map_err(|_| "a port is a number up to 65535");
    let ports = ports.map(|ports| {
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let range = number(first)?..=number(last)?;
        if range.is_empty() { Err("its last port is before its first") } else { Ok(range) }
    });
    Ok((who, ports.transpose()?))
}

fn target(who: &str) -> Result<Target, &'static str> {
    if matches!(who, "any" | "*") {
        return Ok(Target::Any);
    }
    let (address, prefix) = who.split_once('/').map_or((who, None), |(ip, bits)| (ip, Some(bits)));
    if let Ok(address) = address.parse::<IpAddr>() {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(most), str::parse).map_err(|_| "its prefix is no number")?;
        let cidr = Cidr::new(address, prefix).ok_or("its prefix is longer than an address")?;
        return Ok(Target::Cidr(cidr));
    }
    if prefix.is_some() {
        return Err("what is before the prefix is no address");
    }
    let name = who.trim_end_matches('.').to_ascii_lowercase();
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // A name of digits and dots is an address that somebody mistyped.
    let numeric = plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain.len() > 253 || numeric || !plain.split('.').all(label) {
        return Err("who it is about is neither an address nor a name");
    }
    Ok(Target::Name(name))
}

impl FromStr for Verdict {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            _ => Err(format!("'{word}' is neither allow nor deny")),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.verdict)?;
        f.write_str(match self.protocol {
            None => "",
            Some(Protocol::Tcp) => "tcp ",
            Some(Protocol::Udp) => "udp ",
            Some(Protocol::Icmp) => "icmp ",
        })?;
        match &self.target {
            Target::Any => f.write_str("any")?,
            Target::Name(name) => f.write_str(name)?,
            Target::Cidr(Cidr { address, prefix }) if address.is_ipv6() => {
                write!(f, "[{address}/{prefix}]")?;
            }
            Target::Cidr(Cidr { address, prefix }) => write!(f, "{address}/{prefix}")?,
        }
        match &self.ports {
            None => Ok(()),
            Some(ports) if ports.start() == ports.end() => write!(f, ":{}", ports.start()),
            Some(ports) => write!(f, ":{}-{}", ports.start(), ports.end()),
        }
    }
}
