//! Messages of the domain name system (RFC 1035), as far as a forwarder looks at them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use smoltcp::wire::{DnsPacket, DnsQuestion, DnsRecord, DnsRecordData};

/// Bytes of a header.
pub(super) const HEADER: usize = 12;
/// Types of records.
pub(super) const A: u16 = 1;
pub(super) const PTR: u16 = 12;
pub(super) const AAAA: u16 = 28;
/// The internet's class.
const IN: u16 = 1;
/// Codes of answers.
pub(super) const FORMERR: u8 = 1;
pub(super) const SERVFAIL: u8 = 2;
pub(super) const NXDOMAIN: u8 = 3;
pub(super) const NOTIMP: u8 = 4;
/// How long the guest may keep what the network answers by itself: names come and go.
const TTL: u32 = 30;
/// Records of an answer that are looked at.
const MOST_RECORDS: usize = 64;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) id: u16,
    /// Whether the asker wants the whole chain of name servers asked.
    recursion: bool,
    /// The name, in lower case, without a dot at its end. Bytes that are in no host's name are `?`.
    pub(super) name: String,
    pub(super) kind: u16,
    /// As it lies in the message.
    raw: Vec<u8>,
}

impl Question {
    /// Reads the one question of a message.
    ///
    /// # Errors
    /// With the code to answer; `None` when there is nothing to answer to.
    pub(super) fn parse(message: &[u8]) -> Result<Self, Option<u8>> {
        let packet = DnsPacket::new_checked(message).map_err(|_| None)?;
        let flags = u16::from_be_bytes([message[2], message[3]]);
        if flags & 0x8000 != 0 {
            // An answer, which nobody asked for.
            return Err(None);
        }
        if flags & 0x7800 != 0 {
            return Err(Some(NOTIMP));
        }
        if packet.question_count() != 1 {
            return Err(Some(FORMERR));
        }
        let (rest, question) = DnsQuestion::parse(packet.payload()).map_err(|_| Some(FORMERR))?;
        let raw = &packet.payload()[..packet.payload().len() - rest.len()];
        let name = name(&packet, question.name).ok_or(Some(FORMERR))?;
        // Behind the name: the type, and the class, which is the internet's.
        let [.., high, low, _, _] = raw else { return Err(Some(FORMERR)) };
        let kind = u16::from_be_bytes([*high, *low]);
        Ok(Self {
            id: packet.transaction_id(),
            recursion: flags & 0x100 != 0,
            name,
            kind,
            raw: raw.to_vec(),
        })
    }

    /// An answer of ours.
    pub(super) fn answer(&self, code: u8, records: &[Record]) -> Vec<u8> {
        let recursion = if self.recursion { 0x100 } else { 0 };
        let flags = 0x8000 | 0x400 | recursion | 0x80 | u16::from(code);
        let mut message = Vec::with_capacity(HEADER + self.raw.len() + 32 * records.len());
        message.extend(self.id.to_be_bytes());
        message.extend(flags.to_be_bytes());
        message.extend([0, 1]);
        message.extend((records.len() as u16).to_be_bytes());
        message.extend([0; 4]);
        message.extend(&self.raw);
        for record in records {
            // The name is the question's.
            message.extend([0xc0, HEADER as u8]);
            let (kind, data) = match record {
                Record::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
                Record::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
                Record::Name(name) => (PTR, encode_name(name).unwrap_or_else(|| vec![0])),
            };
            message.extend(kind.to_be_bytes());
            message.extend(IN.to_be_bytes());
            message.extend(TTL.to_be_bytes());
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(data);
        }
        message
    }

    /// Whether a message answers this question, asked under that number.
    pub(super) fn is_answered_by(&self, message: &[u8], id: u16) -> bool {
        let answers = |raw: &[u8]| raw.eq_ignore_ascii_case(&self.raw);
        message.len() >= HEADER
            && message[..2] == id.to_be_bytes()
            && message[2] & 0x80 != 0
            && message[4..6] == [0, 1]
            && message.get(HEADER..HEADER + self.raw.len()).is_some_and(answers)
    }

    /// The address in a question for the name of an address (RFC 1035 section 3.5, RFC 3596).
    pub(super) fn reverse(&self) -> Option<IpAddr> {
        if let Some(labels) = self.name.strip_suffix(".in-addr.arpa") {
            let mut octets = [0; 4];
            let mut labels = labels.split('.');
            for octet in octets.iter_mut().rev() {
                *octet = labels.next()?.parse().ok()?;
            }
            return labels.next().is_none().then(|| Ipv4Addr::from(octets).into());
        }
        let labels = self.name.strip_suffix(".ip6.arpa")?;
        let mut bits = 0u128;
        let mut count = 0;
        for label in labels.split('.') {
            let nibble = (label.len() == 1).then(|| u128::from_str_radix(label, 16).ok())??;
            bits = bits >> 4 | nibble << 124;
            count += 1;
        }
        (count == 32).then(|| Ipv6Addr::from(bits).into())
    }
}

/// A record that the network answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Name(String),
}

/// An answer to what is no question.
pub(super) fn refuse(message: &[u8], code: u8) -> Option<Vec<u8>> {
    let id = message.get(..2)?;
    let opcode = message.get(2)? & 0x79;
    Some([id, &[0x80 | opcode, code][..], &[0; 8][..]].concat())
}

/// Whether an answer says that there is more of it than fits into a datagram.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 2 != 0)
}

/// The addresses in an answer, and how long they are valid.
pub(super) fn addresses(message: &[u8]) -> Vec<(IpAddr, Duration)> {
    let mut found = Vec::new();
    let Ok(packet) = DnsPacket::new_checked(message) else { return found };
    let mut rest = packet.payload();
    for _ in 0..packet.question_count().min(1) {
        let Ok((after, _)) = DnsQuestion::parse(rest) else { return found };
        rest = after;
    }
    for _ in 0..usize::from(packet.answer_record_count()).min(MOST_RECORDS) {
        let Ok((after, record)) = DnsRecord::parse(rest) else { return found };
        rest = after;
        let address = match record.data {
            DnsRecordData::A(address) => address.into(),
            DnsRecordData::Aaaa(address) => address.into(),
            _ => continue,
        };
        found.push((address, Duration::from_secs(record.ttl.into())));
    }
    found
}

/// A name, for people and rules.
fn name(packet: &DnsPacket<&[u8]>, raw: &[u8]) -> Option<String> {
    let mut name = String::new();
    for label in packet.parse_name(raw) {
        let label = label.ok()?;
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|byte| match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => char::from(*byte),
            b'A'..=b'Z' => char::from(byte.to_ascii_lowercase()),
            _ => '?',
        }));
        if name.len() > 253 {
            return None;
        }
    }
    Some(name)
}

/// A name as it lies in messages; `None` when it cannot.
pub(in super::super) fn encode_name(name: &str) -> Option<Vec<u8>> {
    let mut encoded = Vec::with_capacity(name.len() + 2);
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len))?;
        encoded.push(len);
        encoded.extend(label.as_bytes());
    }
    encoded.push(0);
    (encoded.len() <= 255).then_some(encoded)
}

#[cfg(test)]
#[path = "message_test.rs"]
mod tests;
