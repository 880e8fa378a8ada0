//! What goes over the socket (`SOCK_SEQPACKET`, unix(7): a message is whole or not there at all).
//!
//! The first message of who connects is a line of text, and so is its answer. From then on a member
//! sends frames, and hears frames and who else is there.
//!
//! ```text
//! hold                      keep going while I am here
//! join NAME ADDRESS         I am a machine
//! list                      who is there, and what is cut?
//! cut NAME NAME             keep these two apart
//! heal                      keep nobody apart
//! -> ok\n...                or: no\nWHY
//! 0, header, frame          a frame, behind crate::header
//! 1, "NAME ADDRESS\n"...    all members, whenever that changes; from the switch only
//! ```

use std::net::Ipv4Addr;

use crate::header;
use crate::link::MAX_FRAME;

/// What a message is, in its first byte.
pub(super) mod kind {
    pub(crate) const FRAME: u8 = 0;
    pub(crate) const ROSTER: u8 = 1;
}

/// Bytes before a frame.
pub(super) const HEAD: usize = 1 + header::LEN;
/// Bytes of the longest message.
pub(super) const MOST: usize = HEAD + MAX_FRAME;
/// Characters of the longest name: a label (RFC 1035, section 2.3.4).
const MOST_NAME: usize = 63;

/// What somebody comes for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hello {
    Hold,
    Join { name: String, address: Ipv4Addr },
    List,
    Cut(String, String),
    Heal,
}

impl Hello {
    pub(super) fn parse(message: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let words: Vec<&str> = text.split(' ').collect();
        Some(match words[..] {
            ["hold"] => Self::Hold,
            ["join", name, address] => {
                Self::Join { name: self::name(name)?, address: address.parse().ok()? }
            }
            ["list"] => Self::List,
            ["cut", one, other] if one != other => Self::Cut(name(one)?, name(other)?),
            ["heal"] => Self::Heal,
            _ => return None,
        })
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Hold => "hold".to_owned(),
            Self::Join { name, address } => format!("join {name} {address}"),
            Self::List => "list".to_owned(),
            Self::Cut(one, other) => format!("cut {one} {other}"),
            Self::Heal => "heal".to_owned(),
        }
    }
}

fn name(text: &str) -> Option<String> {
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_name = (1..=MOST_NAME).contains(&text.len()) && text.bytes().all(is_part);
    is_name.then(|| text.to_owned())
}

/// Who is there, as members are told.
pub(super) fn roster<'a>(members: impl Iterator<Item = (&'a str, Ipv4Addr)>) -> Vec<u8> {
    let mut message = vec![kind::ROSTER];
    for (name, address) in members {
        message.extend(format!("{name} {address}\n").into_bytes());
    }
    message
}

/// Reads what [`roster`] wrote, behind its first byte.
pub(super) fn read_roster(text: &[u8]) -> Vec<(String, Ipv4Addr)> {
    let text = String::from_utf8_lossy(text);
    let line = |line: &str| {
        let (name, address) = line.split_once(' ')?;
        Some((self::name(name)?, address.parse().ok()?))
    };
    text.lines().filter_map(line).take(super::MOST_MEMBERS).collect()
}
