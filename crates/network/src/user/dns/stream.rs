//! Questions and answers over a connection: each behind its length (RFC 1035, section 4.2.2; RFC 7766).

/// Questions of a connection that are not answered yet. Who has more is not read from.
const MOST_OPEN: usize = 8;
/// The longest question: names and options are short.
const MOST_QUESTION: usize = 4096;
/// Bytes of answers that wait to be sent, before more questions are read.
const MOST_ANSWERS: usize = 128 << 10;

/// One connection to the name server.
#[derive(Debug, Default)]
pub(in super::super) struct NameStream {
    input: Vec<u8>,
    answers: Vec<u8>,
    asked: Vec<Vec<u8>>,
    open: usize,
    broken: bool,
}

impl NameStream {
    /// Whether more of what the guest says can be taken.
    pub(in super::super) fn wants(&self) -> bool {
        !self.broken && self.open < MOST_OPEN && self.answers.len() < MOST_ANSWERS
    }

    /// Takes some of what the guest says; how much.
    pub(in super::super) fn put(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while self.wants() && taken < bytes.len() {
            let need = match self.input[..] {
                [high, low, ..] => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => 2,
            };
            if need > 2 + MOST_QUESTION {
                self.broken = true;
                return bytes.len();
            }
            let part = (need - self.input.len()).min(bytes.len() - taken);
            self.input.extend(&bytes[taken..taken + part]);
            taken += part;
            if self.input.len() == need && need > 2 {
                self.open += 1;
                self.asked.push(self.input.split_off(2));
                self.input.clear();
            } else if self.input[..] == [0, 0] {
                self.broken = true;
            }
        }
        taken
    }

    /// Questions that are complete.
    pub(in super::super) fn asked(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.asked.drain(..)
    }

    /// An answer, empty if there is none.
    pub(in super::super) fn answer(&mut self, answer: &[u8]) {
        self.open = self.open.saturating_sub(1);
        if let Ok(len) = u16::try_from(answer.len())
            && len > 0
        {
            self.answers.extend(len.to_be_bytes());
            self.answers.extend(answer);
        }
    }

    /// What is to be sent.
    pub(in super::super) fn answers(&self) -> &[u8] {
        &self.answers
    }

    /// So much of it was.
    pub(in super::super) fn sent(&mut self, bytes: usize) {
        self.answers.drain(..bytes.min(self.answers.len()));
    }

    /// Whether the guest speaks something else.
    pub(in super::super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether all questions were answered.
    pub(in super::super) fn is_idle(&self) -> bool {
        self.open == 0 && self.answers.is_empty() && self.asked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_come_whole_however_they_are_cut() {
        let bytes = [0, 3, 1, 2, 3, 0, 2, 4, 5, 0];
        for cut in 1..bytes.len() {
            let mut stream = NameStream::default();
            let mut asked = Vec::new();
            for part in bytes.chunks(cut) {
                assert_eq!(stream.put(part), part.len());
                asked.extend(stream.asked());
            }
            assert_eq!(asked, [vec![1, 2, 3], vec![4, 5]]);
        }
    }

    #[test]
    fn who_asks_more_than_is_answered_is_not_read() {
        let mut stream = NameStream::default();
        let questions = [0, 1, 7].repeat(100);
        assert_eq!(stream.put(&questions), MOST_OPEN * 3);
        stream.answer(&[1, 2]);
        assert_eq!(stream.answers(), [0, 2, 1, 2]);
        assert_eq!(stream.put(&questions), 3);
        stream.sent(4);
        assert!(!stream.is_idle());
        // Longer than any question.
        let mut stream = NameStream::default();
        stream.put(&[0xff, 0xff, 0]);
        assert!(stream.is_broken());
    }
}
