//! apt's settings (apt.conf(5)), of which Riad uses the proxies.

use std::collections::HashMap;

/// Settings by their full, lower-case name (`acquire::http::proxy`). Of repeated ones the last
/// counts; lists are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AptConf {
    settings: HashMap<String, String>,
}

impl AptConf {
    /// Adds the settings of another file; later files win.
    pub fn merge(&mut self, text: &str) {
        self.settings.extend(parse_conf(text).settings);
    }

    /// A setting.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.settings.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    /// The proxy for an address: `Some("DIRECT")` forbids one, `None` leaves it to the environment.
    #[must_use]
    pub fn proxy_for(&self, url: &str) -> Option<&str> {
        let (scheme, rest) = url.split_once("://")?;
        let authority = rest.split('/').next().unwrap_or("");
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host = host.split(':').next().unwrap_or("");
        self.get(&format!("Acquire::{scheme}::Proxy::{host}"))
            .or_else(|| self.get(&format!("Acquire::{scheme}::Proxy")))
            .filter(|proxy| !proxy.is_empty())
    }
}

/// Reads a configuration file: `A::B "value";` and `A { B "value"; };` in any mixture, with
/// comments. Whatever makes no sense is skipped.
#[must_use]
pub fn parse_conf(text: &str) -> AptConf {
    let mut conf = AptConf::default();
    // The open blocks' names, and the words of the statement being read.
    let mut blocks: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for token in (Tokens { rest: text }) {
        match token {
            Token::Word(word) => words.push(word),
            Token::Open => {
                blocks.push(words.first().cloned().unwrap_or_default());
                words.clear();
            }
            Token::Close => {
                blocks.pop();
                words.clear();
            }
            Token::End => {
                if let [name, value] = words.as_slice() {
                    let path: Vec<&str> = blocks.iter().chain([name]).map(String::as_str).collect();
                    conf.settings.insert(path.join("::").to_ascii_lowercase(), value.clone());
                }
                words.clear();
            }
        }
    }
    conf
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

struct Tokens<'a> {
    rest: &'a str,
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            self.rest = self.rest.trim_start();
            let (skip_to, keep) = if self.rest.starts_with("//") || self.rest.starts_with('#') {
                ("\n", false)
            } else if self.rest.starts_with("/*") {
                ("*/", false)
            } else {
                ("", true)
            };
            if keep {
                break;
            }
            self.rest = self.rest.split_once(skip_to).map_or("", |(_, rest)| rest);
        }
        let first = self.rest.chars().next()?;
        let tail = &self.rest[first.len_utf8()..];
        let (token, rest) = match first {
            '{' => (Token::Open, tail),
            '}' => (Token::Close, tail),
            ';' => (Token::End, tail),
            '"' => {
                let (word, rest) = tail.split_once('"').unwrap_or((tail, ""));
                (Token::Word(word.to_owned()), rest)
            }
            _ => {
                let is_end = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '"');
                let end = self.rest.find(is_end).unwrap_or(self.rest.len());
                (Token::Word(self.rest[..end].to_owned()), &self.rest[end..])
            }
        };
        self.rest = rest;
        Some(token)
    }
}
