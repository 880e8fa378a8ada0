//! A bounded table whose entries have names that are never used twice.

use super::outside::Token;

/// The kinds of things that have tokens; a token says which it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Control = 1,
    Tcp = 2,
    Udp = 3,
    Ping = 4,
    Query = 5,
    Forward = 6,
}

impl Kind {
    /// What a token names.
    pub(super) fn of(token: Token) -> Option<Self> {
        let kinds = [Self::Control, Self::Tcp, Self::Udp, Self::Ping, Self::Query, Self::Forward];
        kinds.into_iter().find(|kind| token.0 >> 56 == *kind as u64)
    }

    /// The token of the only thing of its kind.
    pub(super) fn only(self) -> Token {
        Token((self as u64) << 56)
    }
}

/// At most so many entries, of one kind.
#[derive(Debug)]
pub(super) struct Table<T> {
    kind: Kind,
    most: usize,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    /// How often the place was given up: 24 bits of it are in a token. Readiness that was reported
    /// for who had the place before is thereby nobody's.
    generation: u32,
    entry: Option<T>,
}

impl<T> Table<T> {
    /// A table of at most `most` entries (below 2^32).
    pub(super) fn new(kind: Kind, most: usize) -> Self {
        Self { kind, most, slots: Vec::new(), free: Vec::new() }
    }

    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there is no room.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    /// The name that the next entry will have; `None` when there is no room.
    pub(super) fn next(&self) -> Option<Token> {
        if self.is_full() {
            return None;
        }
        let index = self.free.last().copied().unwrap_or(self.slots.len() as u32);
        let generation = self.slots.get(index as usize).map_or(0, |slot| slot.generation);
        Some(self.token(index, generation))
    }

    /// Puts in an entry; gives it back when there is no room.
    pub(super) fn insert(&mut self, entry: T) -> Result<Token, T> {
        let Some(token) = self.next() else { return Err(entry) };
        match self.free.pop() {
            Some(index) => self.slots[index as usize].entry = Some(entry),
            None => self.slots.push(Slot { generation: 0, entry: Some(entry) }),
        }
        Ok(token)
    }

    /// The entry of that name.
    pub(super) fn get(&self, token: Token) -> Option<&T> {
        self.slots.get(self.index(token)?)?.entry.as_ref()
    }

    /// The entry of that name, to be changed.
    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let index = self.index(token)?;
        self.slots.get_mut(index)?.entry.as_mut()
    }

    /// Takes out the entry of that name.
    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        let index = self.index(token)?;
        let slot = self.slots.get_mut(index)?;
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(index as u32);
        Some(entry)
    }

    /// All names.
    pub(super) fn tokens(&self) -> impl Iterator<Item = Token> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.entry.is_some())
            .map(|(index, slot)| self.token(index as u32, slot.generation))
    }

    fn token(&self, index: u32, generation: u32) -> Token {
        let generation = u64::from(generation & 0xff_ffff);
        Token((self.kind as u64) << 56 | generation << 32 | u64::from(index))
    }

    /// Where an entry of that name would be, if the name is not one of before.
    fn index(&self, token: Token) -> Option<usize> {
        let index = token.0 as u32;
        let slot = self.slots.get(index as usize)?;
        (self.token(index, slot.generation) == token).then_some(index as usize)
    }
}

#[cfg(test)]
#[path = "table_test.rs"]
mod tests;
