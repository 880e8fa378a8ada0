//! The network's name server: answers for the network's own names, and asks the host's name servers
//! for all others.
//!
//! Both sides are hostile. A guest's question is read before it is passed on, under a number that
//! nobody can guess and by a socket of its own; an answer counts only if it comes from who was asked,
//! has that number, and repeats the question.

mod message;
pub(super) mod stream;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::config::{Config, DOMAIN};
use super::context::Context;
use super::events::{Event, count};
use super::outside::{Errno, Outside, Ready, Token};
use super::table::{Kind, Table};
pub(super) use message::encode_name;
use message::{A, AAAA, HEADER, NXDOMAIN, PTR, Question, Record, SERVFAIL};

/// The longest question that is passed on.
const MOST_QUESTION: usize = 4096;
/// The longest answer.
const MOST_ANSWER: usize = 65_535;
/// How long a name server has, before the next is asked.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Messages that are no answers, in a row, before the next is asked.
const MOST_WRONG: usize = 64;
/// Questions that one question becomes at most: each server twice.
const MOST_TRIES: usize = 6;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A datagram, from the guest to that address of ours.
    Datagram { guest: SocketAddr, ours: SocketAddr },
    /// A connection.
    Stream(Token),
}

/// An answer for somebody; empty if there is none.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) asker: Asker,
    pub(super) message: Vec<u8>,
}

#[derive(Debug)]
struct Query<S> {
    asker: Asker,
    question: Question,
    /// As it is passed on, under the number `id`.
    message: Vec<u8>,
    id: u16,
    socket: Option<S>,
    /// Over a connection: what was not written yet, and what was read.
    stream: Option<(Vec<u8>, Vec<u8>)>,
    tries: usize,
    timer: Option<Duration>,
}

/// Questions that wait for an answer.
#[derive(Debug)]
pub(super) struct Dns<S> {
    queries: Table<Query<S>>,
    buffer: Vec<u8>,
}

impl<S: Send + std::fmt::Debug> Dns<S> {
    pub(super) fn new(most: usize) -> Self {
        Self { queries: Table::new(Kind::Query, most), buffer: vec![0; MOST_ANSWER] }
    }

    /// Takes a question; gives the answer if it is known at once.
    pub(super) fn ask<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        asker: Asker,
        message: &[u8],
    ) -> Option<Answer> {
        count(&cx.counters.queries, 1);
        let answer = |message: Vec<u8>| Some(Answer { asker, message });
        let question = match Question::parse(message) {
            Ok(question) if message.len() <= MOST_QUESTION => question,
            Ok(_) => return answer(message::refuse(message, message::FORMERR)?),
            Err(Some(code)) => return answer(message::refuse(message, code)?),
            Err(None) => return answer(Vec::new()),
        };
        if let Some((code, records)) = own(&cx.config, &question) {
            return answer(question.answer(code, &records));
        }
        if !cx.config.policy.may_ask(&question.name) {
            count(&cx.counters.refused, 1);
            let event = Event::NameRefused { name: question.name.clone() };
            cx.teller.tell_refusal(cx.now, event);
            // As if there were none: programs then give up at once, instead of asking again.
            return answer(question.answer(NXDOMAIN, &[]));
        }
        let id = cx.outside.random() as u16;
        let mut message = message.to_vec();
        message[..2].copy_from_slice(&id.to_be_bytes());
        let query = Query {
            asker,
            question,
            message,
            id,
            socket: None,
            stream: None,
            tries: 0,
            timer: None,
        };
        match self.queries.insert(query) {
            Ok(token) => self.pass_on(cx, token),
            // A guest that asks more than is answered asks again.
            Err(query) => answer(query.question.answer(SERVFAIL, &[])),
        }
    }

    /// Asks the next name server; gives an answer if there is none left to ask.
    fn pass_on<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
    ) -> Option<Answer> {
        let servers = cx.outside.resolvers();
        loop {
            let query = self.queries.get_mut(token)?;
            let server = servers.get(query.tries % servers.len().max(1)).copied();
            let most = (servers.len() * 2).min(MOST_TRIES);
            let Some(server) = server.filter(|_| query.tries < most) else {
                let query = self.close(cx, token)?;
                count(&cx.counters.queries_failed, 1);
                return Some(Answer {
                    asker: query.asker,
                    message: query.question.answer(SERVFAIL, &[]),
                });
            };
            query.tries += 1;
            query.socket = None;
            let asked = match &mut query.stream {
                None => cx.outside.datagrams(server, token).and_then(|socket| {
                    cx.outside.write(&socket, &query.message)?;
                    Ok(socket)
                }),
                Some((to_write, read)) => {
                    let len = query.message.len() as u16;
                    *to_write = [&len.to_be_bytes()[..], &query.message].concat();
                    read.clear();
                    cx.outside.connect(server, token)
                }
            };
            if let Ok(socket) = asked {
                query.socket = Some(socket);
                cx.timers.set(token, &mut query.timer, Some(cx.now + PATIENCE));
                return None;
            }
        }
    }

    fn close<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
    ) -> Option<Query<S>> {
        let mut query = self.queries.remove(token)?;
        cx.timers.set(token, &mut query.timer, None);
        Some(query)
    }

    /// A name server has not answered in time.
    pub(super) fn due<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
    ) -> Option<Answer> {
        self.queries.get_mut(token)?.timer = None;
        self.pass_on(cx, token)
    }

    /// A name server's socket has something; gives the answer, if it is that.
    pub(super) fn ready<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
        _: Ready,
    ) -> Option<Answer> {
        if self.queries.get(token)?.stream.is_some() {
            return self.ready_stream(cx, token);
        }
        for _ in 0..MOST_WRONG {
            let query = self.queries.get_mut(token)?;
            let socket = query.socket.as_ref()?;
            match cx.outside.read(socket, &mut self.buffer) {
                Ok(len) => {
                    let message = &self.buffer[..len];
                    if !query.question.is_answered_by(message, query.id) {
                        continue;
                    }
                    let stream = matches!(query.asker, Asker::Stream(_));
                    if stream && message::is_truncated(message) {
                        // Who asked over a connection has no other way to ask for the rest.
                        query.stream = Some((Vec::new(), Vec::new()));
                        query.tries = 0;
                        return self.pass_on(cx, token);
                    }
                    let message = message.to_vec();
                    return self.answered(cx, token, message);
                }
                Err(Errno::AGAIN | Errno::INTR) => return None,
                // Nobody is there: no need to wait.
                Err(_) => break,
            }
        }
        self.pass_on(cx, token)
    }

    fn ready_stream<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
    ) -> Option<Answer> {
        let query = self.queries.get_mut(token)?;
        let (Some(socket), Some((to_write, read))) = (&query.socket, &mut query.stream) else {
            return None;
        };
        let moved = (|| {
            while !to_write.is_empty() {
                let written = cx.outside.write(socket, to_write)?;
                to_write.drain(..written.min(to_write.len()));
            }
            loop {
                if let [high, low, message @ ..] = &read[..]
                    && message.len() >= usize::from(u16::from_be_bytes([*high, *low]))
                {
                    return Ok(());
                }
                match cx.outside.read(socket, &mut self.buffer)? {
                    0 => return Err(Errno::CONNRESET),
                    // A message is no longer than the buffer: so this is bounded too.
                    len => read.extend(&self.buffer[..len.min(self.buffer.len())]),
                }
            }
        })();
        match moved {
            Ok(()) => {
                let len = 2 + usize::from(u16::from_be_bytes([read[0], read[1]]));
                let message = read[2..len].to_vec();
                if query.question.is_answered_by(&message, query.id) {
                    self.answered(cx, token, message)
                } else {
                    self.pass_on(cx, token)
                }
            }
            // Connecting is not done, or there is no more for now.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => None,
            Err(_) => self.pass_on(cx, token),
        }
    }

    /// A name server has answered: so is the guest, under its own number.
    fn answered<O: Outside<Socket = S>>(
        &mut self,
        cx: &mut Context<O>,
        token: Token,
        mut message: Vec<u8>,
    ) -> Option<Answer> {
        let query = self.close(cx, token)?;
        let rules: Vec<_> = cx.config.policy.rules_of(&query.question.name).collect();
        if !rules.is_empty() {
            for (address, ttl) in message::addresses(&message) {
                rules.iter().for_each(|rule| cx.names.learn(address, *rule, cx.now, ttl));
            }
        }
        if message.len() >= HEADER {
            message[..2].copy_from_slice(&query.question.id.to_be_bytes());
        }
        Some(Answer { asker: query.asker, message })
    }
}

/// The answer to a question about the network's own names and addresses, and its code.
fn own(config: &Config, question: &Question) -> Option<(u8, Vec<Record>)> {
    let addresses = &config.addresses;
    let (name, v6) = (question.name.as_str(), addresses.v6);
    if question.kind == PTR
        && let Some(address) = question.reverse()
    {
        let label = if addresses.is_gateway(address) {
            Some("gateway")
        } else if addresses.is_host(address) {
            Some("host")
        } else if address == IpAddr::V4(addresses.guest)
            || v6.is_some_and(|v6| address == IpAddr::V6(v6.guest))
        {
            config.hostname.as_deref()
        } else {
            None
        };
        // The first of its names is what it is called.
        if let Some((given, _)) = config.names.iter().find(|(_, known)| *known == address) {
            return Some((0, vec![Record::Name(format!("{given}.{DOMAIN}"))]));
        }
        return match label {
            Some(label) => Some((0, vec![Record::Name(format!("{label}.{DOMAIN}"))])),
            // Nobody else knows who is here.
            None => addresses.contains(address).then_some((NXDOMAIN, Vec::new())),
        };
    }
    let local = name.strip_suffix(DOMAIN).and_then(|rest| match rest.strip_suffix('.') {
        None if rest.is_empty() => Some(""),
        other => other,
    });
    let label = local.unwrap_or(name);
    let hostname = config.hostname.as_deref().map(str::to_ascii_lowercase);
    let given = config.names.iter().filter(|(given, _)| {
        given.eq_ignore_ascii_case(name) || local.is_some_and(|l| given.eq_ignore_ascii_case(l))
    });
    let mut found: Vec<IpAddr> = given.map(|(_, address)| *address).collect();
    let mut add = |v4, v6: Option<_>| {
        found.push(IpAddr::V4(v4));
        found.extend(v6.map(IpAddr::V6));
    };
    match label {
        "gateway" if local.is_some() => add(addresses.gateway, v6.map(|v6| v6.gateway)),
        "host" if local.is_some() => add(addresses.host, v6.map(|v6| v6.host)),
        label if hostname.as_deref() == Some(label) => add(addresses.guest, v6.map(|v6| v6.guest)),
        _ => {}
    }
    if found.is_empty() {
        // The domain itself is there, and has no addresses.
        let code = if label.is_empty() { 0 } else { NXDOMAIN };
        return local.map(|_| (code, Vec::new()));
    }
    let wanted = |address: &IpAddr| match question.kind {
        A => address.is_ipv4(),
        AAAA => address.is_ipv6(),
        _ => false,
    };
    Some((0, found.into_iter().filter(wanted).map(Record::Address).collect()))
}
