//! The world's name server (RFC 1035): it knows one name that has addresses, and one whose text is too
//! long for a datagram.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

use super::{NAME, WWW};

/// Bytes of the longest answer in a datagram, without extensions.
pub(super) const SHORT: usize = 512;
/// The name whose text is long.
const LONG: &str = "long.world.test";

const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;

/// Answers each question of a connection.
pub(super) fn stream(mut stream: TcpStream) -> io::Result<()> {
    loop {
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(len))];
        stream.read_exact(&mut question)?;
        let Some(answer) = answer(&question, usize::MAX) else { return Ok(()) };
        stream.write_all(&(answer.len() as u16).to_be_bytes())?;
        stream.write_all(&answer)?;
    }
}

/// The answer to a question, in at most so many bytes. What is no question has none.
pub(super) fn answer(question: &[u8], most: usize) -> Option<Vec<u8>> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let len = usize::from(*question.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + len)?).to_ascii_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes(*question.get(at..at + 2)?.first_chunk()?);
    let name = labels.join(".");
    let data: Vec<Vec<u8>> = match (name.as_str(), kind) {
        (NAME, A) => vec![WWW[0].parse::<Ipv4Addr>().unwrap().octets().to_vec()],
        (NAME, AAAA) => vec![WWW[1].parse::<Ipv6Addr>().unwrap().octets().to_vec()],
        (LONG, TXT) => (0..8).map(|n| [&[200], &[b'a' + n; 200][..]].concat()).collect(),
        _ => Vec::new(),
    };
    let write = |records: &[Vec<u8>], flags: u16| {
        let known = [NAME, LONG].contains(&name.as_str());
        // A response, with recursion; or there is no such name.
        let flags = 0x8180 | flags | if known { 0 } else { 3 };
        let mut answer = question[..2].to_vec();
        for word in [flags, 1, records.len() as u16, 0, 0] {
            answer.extend(word.to_be_bytes());
        }
        answer.extend(&question[12..at + 4]);
        for data in records {
            // The name of the question; the Internet; a minute.
            answer.extend([0xc0, 12]);
            answer.extend(kind.to_be_bytes());
            answer.extend([0, 1, 0, 0, 0, 60]);
            answer.extend((data.len() as u16).to_be_bytes());
            answer.extend(data);
        }
        answer
    };
    question.get(at..at + 4)?;
    let whole = write(&data, 0);
    // Truncated: ask again by TCP.
    Some(if whole.len() <= most { whole } else { write(&[], 0x0200) })
}
