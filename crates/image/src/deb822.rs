//! Debian's control-file syntax (deb822(5), Debian Policy 5.1): paragraphs of `Name: value` fields,
//! separated by empty lines, with continuation lines that start with a blank.
//!
//! The parser borrows from its input, keeps no more than one paragraph at a time and takes any bytes
//! that are UTF-8; what it cannot read it reports with a line number.

/// A malformed control file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct SyntaxError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

/// One paragraph: its fields in the order they were written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paragraph<'a> {
    fields: Vec<(&'a str, &'a str)>,
    text: &'a str,
}

impl<'a> Paragraph<'a> {
    /// The raw value of a field, continuation lines included. Names are compared without case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v)
    }

    /// A field's lines, trimmed, without comment lines and empty ones.
    pub fn lines(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.get(name)
            .unwrap_or("")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(str::trim)
            .filter(|line| !line.is_empty())
    }

    /// A field's words, across continuation lines.
    pub fn words(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.lines(name).flat_map(str::split_whitespace)
    }

    /// Whether a field says `yes`.
    #[must_use]
    pub fn is_yes(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v.trim().eq_ignore_ascii_case("yes"))
    }

    /// The fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> + '_ {
        self.fields.iter().copied()
    }

    /// The paragraph as it was written, without the empty line that ends it.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }
}

/// Reads paragraphs one after the other. Stops after the first error.
#[derive(Debug, Clone)]
pub struct Paragraphs<'a> {
    rest: &'a str,
    line: usize,
    failed: bool,
}

impl<'a> Paragraphs<'a> {
    /// Reads the paragraphs of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { rest: text, line: 0, failed: false }
    }

    /// Takes one line off `rest`, without its line feed.
    fn next_line(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let (line, rest) = self.rest.split_once('\n').unwrap_or((self.rest, ""));
        self.rest = rest;
        Some(line)
    }

    fn paragraph(&mut self) -> Result<Option<Paragraph<'a>>, SyntaxError> {
        let mut start = self.rest;
        let mut fields: Vec<(&'a str, &'a str)> = Vec::new();
        // Where the value of the last field starts; it is cut when the next field begins.
        let mut open: Option<(&'a str, &'a str)> = None;
        loop {
            let before = self.rest;
            let line = self.next_line();
            let is_end = line.is_none_or(|l| l.trim().is_empty());
            let is_continuation = line.is_some_and(|l| l.starts_with([' ', '\t']));
            let is_comment = line.is_some_and(|l| l.starts_with('#'));
            if !is_end && (is_continuation || is_comment) {
                if is_continuation && open.is_none() {
                    return Err(self.error("a continuation line without a field before it"));
                }
                continue;
            }
            if let Some((name, from)) = open.take() {
                fields.push((name, cut(from, before)));
            }
            let Some(line) = line.filter(|_| !is_end) else {
                if fields.is_empty() && !self.rest.is_empty() {
                    start = self.rest;
                    continue;
                }
                if fields.is_empty() {
                    return Ok(None);
                }
                return Ok(Some(Paragraph { fields, text: cut(start, before) }));
            };
            let Some((name, _)) = line.split_once(':') else {
                return Err(self.error("neither a field nor a continuation line"));
            };
            if name.is_empty() || name.contains(char::is_whitespace) {
                return Err(self.error("a field name is empty or contains a blank"));
            }
            // `name` is a prefix of `before`, and a colon follows it.
            open = Some((name, before.get(name.len() + 1..).unwrap_or("")));
        }
    }

    fn error(&self, reason: &'static str) -> SyntaxError {
        SyntaxError { line: self.line, reason }
    }
}

/// The part of `from` before `rest`, where `rest` is a tail of `from`; trimmed.
fn cut<'a>(from: &'a str, rest: &str) -> &'a str {
    from.get(..from.len().saturating_sub(rest.len())).unwrap_or(from).trim()
}

impl<'a> Iterator for Paragraphs<'a> {
    type Item = Result<Paragraph<'a>, SyntaxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.paragraph().transpose();
        self.failed = matches!(result, Some(Err(_)));
        result
    }
}

#[cfg(test)]
#[path = "deb822_test.rs"]
mod tests;
