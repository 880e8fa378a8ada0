//! The code cache: translated blocks by guest-physical address, shared by a machine's processors.
//!
//! Code lies in segments that are filled in turn. When one is begun, the one after it is condemned:
//! its blocks are forgotten and the branches to them taken back. Processors that may still be in it
//! are asked to come out, and come out by themselves at the next block; by the time it is needed they
//! have. If one has not (its thread was not run), code is interpreted until it has: nobody ever waits.
//!
//! A block whose page was written to is made unusable by taking back the branches to it, and by
//! patching the entry that processors know it by.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use iced_x86::Encoder;
use riad_memory::CodeWatch;

use super::asm::Asm;
use super::emit::{self, Cold, Emitter, Entries, Item, Kind, Place};
use super::frame::LinkData;
use super::stubs::{Calls, Stubs};
use super::sys::{CodeMemory, FrameMemory};
use crate::op::Op;
use crate::options::{LEAST_CODE_CACHE, MOST_CODE_CACHE};

/// Bytes at the start of code memory for the shared routines.
const STUBS: u32 = 128 << 10;
/// More than any block can have.
const LONGEST_CODE: u32 = 64 << 10;
/// A segment has at least this many bytes, and there are at most so many.
const LEAST_SEGMENT: u32 = 256 << 10;
const MOST_SEGMENTS: u32 = 16;
/// Of so many parts of a segment, so many are for what is often run.
const PARTS: u32 = 8;
const OFTEN: u32 = 5;
/// How often a page's code may be overwritten, with few executions in between, until it is left to
/// the interpreter for a while.
const TOO_HOT: u32 = 400;
/// Most instructions of a page that are known to be scattered.
const MOST_SCATTERED: usize = 64;
/// What one overwriting adds to a page's heat; a look-up takes one away.
const HEAT: u32 = 16;

/// A block, or the knowledge that there can be none.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Known {
    /// Its entries.
    Block(Entries),
    /// The instruction is for the interpreter.
    Interpret,
}

/// What a block is known by: page of RAM, offset in it, and [`Kind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) fn new(page: usize, offset: u32, kind: Kind) -> Self {
        Self((page as u64) << 20 | u64::from(offset) << 8 | kind.bits())
    }

    /// As a number, of which no two are the same.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    fn page(self) -> usize {
        (self.0 >> 20) as usize
    }

    fn offset(self) -> u32 {
        (self.0 >> 8) as u32 & 0xfff
    }
}

/// Keys are numbers already; this spreads them.
#[derive(Debug, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

type Map<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// The blocks of one page of RAM.
#[derive(Debug, Default)]
struct Page {
    keys: Vec<Key>,
    heat: u32,
    /// Offsets of instructions whose memory operands seldom stay in a page.
    scattered: Vec<u32>,
}

/// Whether a processor is in translated code, and how to call it out.
#[derive(Debug)]
pub(crate) struct Presence {
    /// The turn when it went in; 0 when outside.
    pub(crate) inside: AtomicU64,
    pub(crate) frame: Arc<FrameMemory>,
}

/// A stretch of code memory.
#[derive(Debug, Default)]
struct Segment {
    /// The blocks that were put here.
    keys: Vec<Key>,
    /// Ops that code here refers to.
    #[expect(clippy::vec_box, reason = "code has their addresses")]
    ops: Vec<Box<Op>>,
    /// Counts how often it was begun.
    fill: u32,
    /// It was full before, and was given to be gathered into huge pages.
    gathered: bool,
    /// The turn that began when it was condemned: who went in since cannot be here.
    condemned: u64,
}

/// A branch that leads to a block: where its distance stands, where it led before, and how often the
/// segment it stands in had been begun then ([`Segment::fill`]).
#[derive(Debug, Clone, Copy)]
struct Link {
    place: u32,
    stub: u32,
    fill: u32,
    /// The next one of the same block.
    next: u32,
}

/// No link.
const NONE: u32 = u32::MAX;

/// The branches to all blocks: a list for each, whose first one the block knows. There are as many as
/// there are blocks, so they lie close together.
#[derive(Debug)]
struct Links {
    all: Vec<Link>,
    /// The first of those that are free.
    free: u32,
}

impl Links {
    fn new() -> Self {
        Self { all: Vec::new(), free: NONE }
    }

    /// Puts a link into the list that begins at `first`.
    fn push(&mut self, first: &mut u32, link: Link) {
        let link = Link { next: *first, ..link };
        if let Some(place) = self.all.get_mut(self.free as usize) {
            *first = std::mem::replace(&mut self.free, place.next);
            *place = link;
        } else {
            *first = self.all.len() as u32;
            self.all.push(link);
        }
    }

    /// Takes the first link of a list out of it.
    fn pop(&mut self, first: &mut u32) -> Option<Link> {
        let place = self.all.get_mut(*first as usize)?;
        let link = *place;
        place.next = std::mem::replace(&mut self.free, *first);
        *first = link.next;
        Some(link)
    }
}

/// What is known of a block, and the first of the branches that lead to it.
#[derive(Debug, Clone, Copy)]
struct Block {
    known: Known,
    links: u32,
}

struct Inner {
    blocks: Map<Key, Block>,
    pages: Map<usize, Page>,
    links: Links,
    stubs: Stubs,
    asm: Asm,
    encoder: Encoder,
    items: Vec<Item>,
    cold: Vec<Cold>,
    segments: Vec<Segment>,
    current: usize,
    /// Where the next block goes, and where the part for those ends.
    next: u32,
    end: u32,
    /// The same for what of a block is seldom run.
    next_apart: u32,
    end_apart: u32,
    members: Vec<Weak<Presence>>,
    /// From when the first segment is full.
    gatherer: Option<Gatherer>,
}

impl Inner {
    /// Goes on at the start of a segment of so many bytes.
    fn place(&mut self, number: usize, bytes: u32) {
        self.current = number;
        self.next = STUBS + number as u32 * bytes;
        self.end = self.next + bytes / PARTS * OFTEN;
        self.next_apart = self.end;
        self.end_apart = self.next + bytes;
    }
}

/// Figures of a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Blocks translated.
    pub blocks: u64,
    /// Guest instructions in them.
    pub instructions: u64,
    /// Bytes of code made of them.
    pub bytes: u64,
    /// How often pages with code in use were written to.
    pub overwritten: u64,
    /// How often a segment was full.
    pub turns: u64,
}

/// Gathers full segments into huge pages, in a thread of its own, until it is dropped.
#[derive(Debug)]
struct Gatherer {
    full: Option<Sender<Range<u32>>>,
    thread: Option<JoinHandle<()>>,
}

impl Gatherer {
    fn new(memory: Arc<CodeMemory>) -> Self {
        let (full, segments) = channel::<Range<u32>>();
        let gather = move || segments.iter().for_each(|segment| memory.gather(segment));
        let thread = riad_confine::spawn(riad_confine::Kind::Gatherer, "code-gatherer", gather);
        Self { full: Some(full), thread: thread.ok() }
    }

    /// A segment is full for the first time.
    fn gather(&self, segment: Range<u32>) {
        if let Some(full) = &self.full {
            // Where there is no thread code stays as it is.
            let _ = full.send(segment);
        }
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        self.full = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// See the module.
pub(crate) struct CodeCache {
    memory: Arc<CodeMemory>,
    /// Bytes of a segment.
    segment: u32,
    /// Counts the segments condemned so far, from 1.
    turn: AtomicU64,
    inner: Mutex<Inner>,
    enter: u64,
    stats: [AtomicU64; 5],
}

impl std::fmt::Debug for CodeCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl CodeCache {
    /// A cache of about `size` bytes.
    ///
    /// # Errors
    /// When the host has no memory to run code in.
    pub(crate) fn new(size: usize, calls: Calls) -> std::io::Result<Self> {
        let size = size.clamp(LEAST_CODE_CACHE, MOST_CODE_CACHE);
        let count = ((size as u32 - STUBS) / LEAST_SEGMENT).clamp(3, MOST_SEGMENTS);
        let segment = ((size as u32 - STUBS) / count) & !0xfff;
        let memory = Arc::new(CodeMemory::new(size)?);
        let mut asm = Asm::default();
        asm.start(0);
        let stubs = Stubs::build(&mut asm, calls);
        debug_assert!(asm.code.len() <= STUBS as usize);
        memory.write(0, &asm.code);
        let enter = memory.address(stubs.enter);
        let mut inner = Inner {
            blocks: Map::default(),
            pages: Map::default(),
            stubs,
            asm,
            encoder: Encoder::new(64),
            items: Vec::new(),
            cold: Vec::new(),
            links: Links::new(),
            segments: (0..count).map(|_| Segment::default()).collect(),
            current: 0,
            next: 0,
            end: 0,
            next_apart: 0,
            end_apart: 0,
            members: Vec::new(),
            gatherer: None,
        };
        inner.place(0, segment);
        Ok(Self {
            memory,
            segment,
            turn: AtomicU64::new(1),
            inner: Mutex::new(inner),
            enter,
            stats: Default::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a processor.
    pub(crate) fn join(&self, frame: Arc<FrameMemory>) -> Arc<Presence> {
        let presence = Arc::new(Presence { inside: AtomicU64::new(0), frame });
        self.lock().members.push(Arc::downgrade(&presence));
        presence
    }

    /// Host address of the way in.
    pub(crate) fn enter(&self) -> u64 {
        self.enter
    }

    /// Host address of the code at an offset.
    pub(crate) fn address(&self, offset: u32) -> u64 {
        self.memory.address(offset)
    }

    /// Which turn it is: what was found in another one is void.
    pub(crate) fn turn(&self) -> u64 {
        self.turn.load(Ordering::SeqCst)
    }

    /// What is known of a block. With it comes the turn.
    pub(crate) fn find(&self, key: Key) -> Option<(Known, u64)> {
        let mut inner = self.lock();
        let known = inner.blocks.get(&key)?.known;
        if matches!(known, Known::Interpret)
            && let Some(page) = inner.pages.get_mut(&key.page())
        {
            page.heat = page.heat.saturating_sub(1);
        }
        Some((known, self.turn()))
    }

    /// Translates the block that begins with `bytes`, which were read after the page was marked as
    /// holding code; `good` tells whether they still are what the page has.
    pub(crate) fn translate(
        &self,
        key: Key,
        kind: Kind,
        within_large: u32,
        bytes: &[u8],
        good: impl FnOnce() -> bool,
    ) -> (Known, u64) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let page = inner.pages.entry(key.page()).or_default();
        if page.heat > TOO_HOT {
            page.heat -= 1;
            return (Known::Interpret, self.turn());
        }
        page.heat = page.heat.saturating_sub(1);
        let full = inner.end - inner.next < LONGEST_CODE
            || inner.end_apart - inner.next_apart < LONGEST_CODE;
        if full && !self.begin_segment(inner) {
            return (Known::Interpret, self.turn());
        }
        let mut items = std::mem::take(&mut inner.items);
        emit::items(bytes, key.offset(), kind, &mut items);
        let scattered = &inner.pages.entry(key.page()).or_default().scattered;
        for item in items.iter_mut().filter(|item| scattered.contains(&item.offset)) {
            item.scattered = true;
        }
        let plain = items
            .first()
            .is_some_and(|first| !kind.pure || first.class != super::class::Class::Interpret);
        let known = if plain { self.emit(inner, key, kind, within_large, &items) } else { None };
        inner.items = items;
        let known = known.map_or(Known::Interpret, Known::Block);
        if good() {
            let old = inner.blocks.insert(key, Block { known, links: NONE });
            if let Some(old) = old {
                // Another processor was faster; nobody will look for its block from now on.
                self.unlink(inner, old);
            }
            inner.pages.entry(key.page()).or_default().keys.push(key);
            if matches!(known, Known::Interpret) {
                // So that what is known of such places has a bound too.
                inner.segments[inner.current].keys.push(key);
                inner.next += 16;
            }
            (known, self.turn())
        } else {
            // What was read is old already.
            (Known::Interpret, self.turn())
        }
    }

    fn emit(
        &self,
        inner: &mut Inner,
        key: Key,
        kind: Kind,
        within_large: u32,
        items: &[Item],
    ) -> Option<Entries> {
        inner.asm.start(inner.next);
        let mut emitter = Emitter {
            asm: &mut inner.asm,
            encoder: &mut inner.encoder,
            stubs: &inner.stubs,
            kind,
            page: key.page(),
            within_large: i64::from(within_large),
            apart: inner.next_apart,
            flags: Place { host: true, saved: false },
            cold: std::mem::take(&mut inner.cold),
            ops: Vec::new(),
            count: 0,
        };
        let entries = emitter.block(items)?;
        let Emitter { ops, cold, .. } = emitter;
        inner.cold = cold;
        let len = inner.asm.code.len() as u32;
        if len > LONGEST_CODE {
            return None;
        }
        let segment = &mut inner.segments[inner.current];
        segment.ops.extend(ops);
        segment.keys.push(key);
        let (block, apart) = inner.asm.parts();
        self.memory.write(inner.next, block);
        self.memory.write(inner.next_apart, apart);
        inner.next += block.len() as u32;
        inner.next_apart += apart.len() as u32;
        for (n, add) in [(0, 1), (1, items.len() as u64), (2, u64::from(len))] {
            self.stats[n].fetch_add(add, Ordering::Relaxed);
        }
        Some(entries)
    }

    /// Goes on in the next segment, unless a processor may still be there, and condemns the one after
    /// it.
    fn begin_segment(&self, inner: &mut Inner) -> bool {
        let count = inner.segments.len();
        let next = (inner.current + 1) % count;
        let condemned = inner.segments[next].condemned;
        inner.members.retain(|member| member.strong_count() > 0);
        let mut free = true;
        for member in inner.members.iter().filter_map(Weak::upgrade) {
            let inside = member.inside.load(Ordering::SeqCst);
            if inside != 0 && inside < condemned {
                free = false;
                member.frame.attention().store(1, Ordering::SeqCst);
            }
        }
        if !free {
            return false;
        }
        if !std::mem::replace(&mut inner.segments[inner.current].gathered, true) {
            let start = STUBS + inner.current as u32 * self.segment;
            let memory = &self.memory;
            let gatherer = inner.gatherer.get_or_insert_with(|| Gatherer::new(Arc::clone(memory)));
            gatherer.gather(start..start + self.segment);
        }
        let segment = &mut inner.segments[next];
        segment.ops.clear();
        segment.fill = segment.fill.wrapping_add(1);
        inner.place(next, self.segment);
        self.condemn(inner, (next + 1) % count);
        true
    }

    /// Forgets what a segment has; its code may still be running.
    fn condemn(&self, inner: &mut Inner, index: usize) {
        let start = STUBS + index as u32 * self.segment;
        for key in std::mem::take(&mut inner.segments[index].keys) {
            let Some(&block) = inner.blocks.get(&key) else { continue };
            if let Known::Block(entries) = block.known
                && !(start..start + self.segment).contains(&entries.host)
            {
                // It was translated again since, elsewhere.
                continue;
            }
            inner.blocks.remove(&key);
            self.unlink(inner, block);
            if let Some(page) = inner.pages.get_mut(&key.page()) {
                page.keys.retain(|&known| known != key);
                if page.keys.is_empty() && page.heat == 0 {
                    inner.pages.remove(&key.page());
                }
            }
        }
        let turn = self.turn() + 1;
        inner.segments[index].condemned = turn;
        self.turn.store(turn, Ordering::SeqCst);
        self.stats[4].fetch_add(1, Ordering::Relaxed);
        for member in inner.members.iter().filter_map(Weak::upgrade) {
            member.frame.attention().store(1, Ordering::SeqCst);
        }
    }

    /// Takes back the branches to a block that is not known any more.
    fn unlink(&self, inner: &mut Inner, mut block: Block) {
        while let Some(link) = inner.links.pop(&mut block.links) {
            let segment = inner.segments.get(self.segment_of(link.place));
            if segment.is_some_and(|segment| segment.fill == link.fill) {
                let distance = link.stub.wrapping_sub(link.place + 4);
                self.memory.patch(link.place, &distance.to_le_bytes());
            }
        }
    }

    /// The segment that a place in code memory is in.
    fn segment_of(&self, place: u32) -> usize {
        (place.saturating_sub(STUBS) / self.segment) as usize
    }

    /// Makes the link whose data stands at host address `data`, to the block `key` in `page` of RAM,
    /// as long as it is the turn `turn`.
    pub(crate) fn link(&self, data: u64, key: Key, page: usize, turn: u64) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(block) = inner.blocks.get_mut(&key) else { return };
        let Known::Block(entries) = block.known else { return };
        let at = data.wrapping_sub(self.memory.address(0));
        let (Ok(at), true) = (u32::try_from(at), self.turn() == turn) else { return };
        let Some(link) = self.memory.link_data(at) else { return };
        if at < STUBS || link.page as usize != page {
            return;
        }
        let place = at - (link.place >> 1);
        let stub = at - LinkData::CALL;
        let target = if link.place & 1 != 0 { entries.saved } else { entries.host };
        self.memory.patch(place, &target.wrapping_sub(place + 4).to_le_bytes());
        let fill = inner.segments.get(self.segment_of(place)).map_or(0, |segment| segment.fill);
        inner.links.push(&mut block.links, Link { place, stub, fill, next: NONE });
    }

    /// From now on the instruction at this place has its memory operand looked up in the TLB each
    /// time. Code that has it is made anew.
    pub(crate) fn scattered(&self, page: usize, offset: u32) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(known) = inner.pages.get_mut(&page) else { return };
        if known.scattered.len() < MOST_SCATTERED && !known.scattered.contains(&offset) {
            known.scattered.push(offset);
            self.discard(inner, page);
        }
    }

    /// Makes the blocks of a page unusable. Processors finish the one they are in.
    fn discard(&self, inner: &mut Inner, page: usize) {
        let Some(known) = inner.pages.get_mut(&page) else { return };
        for key in std::mem::take(&mut known.keys) {
            let Some(block) = inner.blocks.remove(&key) else { continue };
            self.unlink(inner, block);
            if let Known::Block(entries) = block.known {
                let distance = entries.stale.wrapping_sub(entries.patch + 5).to_le_bytes();
                let [a, b, c, d] = distance;
                self.memory.patch(entries.patch, &[0xe9, a, b, c, d]);
            }
        }
    }

    /// Figures.
    pub(crate) fn stats(&self) -> CacheStats {
        let [blocks, instructions, bytes, overwritten, turns] =
            [0, 1, 2, 3, 4].map(|n| self.stats[n].load(Ordering::Relaxed));
        CacheStats { blocks, instructions, bytes, overwritten, turns }
    }
}

impl Drop for CodeCache {
    fn drop(&mut self) {
        let CacheStats { blocks, instructions, bytes, overwritten, turns } = self.stats();
        tracing::debug!(blocks, instructions, bytes, overwritten, turns, "translated code");
    }
}

impl CodeWatch for CodeCache {
    /// Nothing made from this page is run any more once this returns, but what processors are in the
    /// middle of.
    fn code_written(&self, page: usize) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let Some(known) = inner.pages.get_mut(&page) else { return };
        known.heat = known.heat.saturating_add(HEAT).min(TOO_HOT + 256);
        known.scattered.clear();
        self.discard(inner, page);
        self.stats[3].fetch_add(1, Ordering::Relaxed);
    }
}
