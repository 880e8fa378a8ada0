//! The translator against the interpreter: user code of any bytes, from any registers, in both
//! tiers, whole, cut after some instructions, and with nobody counting. What the guest can see must
//! be the same: the processor, all of memory, accesses to what is not RAM.
//!
//! The code is the user's, at addresses of every kind, and what system code its faults and calls lead
//! to ([`layout`]). It writes to itself, also by way of another mapping. Machines are used again for
//! many cases, so that what they keep of earlier code must not be seen.
//!
//! No difference is reported that the architecture allows ([`open`]).
//!
//! **No guest address reaches outside guest memory**: registers hold, and so operands of every form
//! are made of, addresses that the guest does not have: where this process has memory (a page that
//! must stay as it is, the machines' RAM, this function, its stack), beside and beyond what is
//! canonical, around the last byte of RAM, across 2^32, and any 64 bits. In the interpreter, whose
//! accesses are all checked, they fault or reach a device. A translator that reached anything else by
//! one would get another value, change a byte that is compared, or touch the guards that lie before
//! and behind RAM, or nothing at all, and end the process: each is a failure here.
//!
//! How far a case got is counted in blocks that were translated for it, in cases that were compared to
//! their end.

mod layout;
mod open;
mod side;

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use riad_cpu::{Vcpu, VcpuHandle};
use riad_cpu_soft::Tier;
use riad_memory::{Gpa, GuestMemory};

use super::{Target, no_seeds};
use crate::input::Input;
use crate::random::Random;
use crate::seeds::user;
use layout::{Choices, HostAddresses, SLOTS, Start};
use side::{Seen, Side, memory_differences};

/// The translator.
pub(super) const TRANSLATE: Target = Target {
    name: "translate",
    what: "user code of any bytes, translated and interpreted, which must agree",
    unit: "blocks",
    run,
    seeds: no_seeds,
    generate: Some(make),
    words: &[&[0xeb], &[0xe2, 0xf0], &[0x75, 0xe0], &[0xe8], &[0xc3], &[0xf0, 0x48], &[0x0f]],
};

/// Instructions of a case.
const INSTRUCTIONS: u64 = 500;
/// Cases that run in the same machines.
const TOGETHER: u64 = 8 * SLOTS;
/// How often a case that nobody counts is looked at, and how many times until it is stopped.
const LOOK: Duration = Duration::from_millis(100);
const PATIENCE: u32 = 40;
/// Bytes of memory that no guest has.
const SENTINEL: u64 = 0x2000;

/// The machines, and what lies beside them.
struct Bench {
    interpreter: Side,
    translator: Side,
    /// The translator when nobody counts instructions.
    free: Side,
    sentinel: GuestMemory,
    before: Vec<u8>,
    host: HostAddresses,
    watch: Watch,
    /// Code of the last cases, as each began.
    slots: Vec<u8>,
    cases: u64,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

/// One case.
struct Case {
    choices: Choices,
    /// Where it is cut.
    cuts: Vec<u64>,
    code: Vec<u8>,
}

impl Case {
    fn read(bytes: &[u8]) -> Self {
        let mut input = Input::new(bytes);
        let (seed, how) = (input.u64(), input.u8());
        let choices = Choices { seed, wild: how & 3, large: how & 0x1c == 0 };
        let mut cuts: Vec<u64> =
            (0..how >> 6).map(|_| 1 + ((u64::from(input.u8()) * INSTRUCTIONS) >> 10)).collect();
        cuts.push(INSTRUCTIONS);
        Self { choices, cuts, code: input.rest().to_vec() }
    }
}

/// What came of a comparison.
enum Verdict {
    Same,
    /// They differ, from where the architecture allows it.
    Open,
    Differs(String),
}

/// Runs a case. Tells how many blocks were translated for it.
fn run(bytes: &[u8]) -> u64 {
    let case = Case::read(bytes);
    BENCH.with_borrow_mut(|kept| {
        let mut bench = match kept.take().filter(|bench| bench.cases < TOGETHER) {
            Some(bench) => bench,
            None => match Bench::new() {
                Some(bench) => bench,
                None => return 0,
            },
        };
        let Some((verdict, blocks)) = bench.check(&case) else { return 0 };
        let blocks = match verdict {
            Verdict::Same => blocks,
            // Not all of it was compared.
            Verdict::Open => 0,
            Verdict::Differs(what) => panic!(
                "the tiers differ{}: {what}",
                if bench.cases == 1 { String::new() } else { again(&case, bench.cases) }
            ),
        };
        *kept = Some(bench);
        blocks
    })
}

/// What a case does in new machines that differed in others.
#[cold]
fn again(case: &Case, cases: u64) -> String {
    let verdict = Bench::new().and_then(|mut bench| bench.check(case));
    match verdict {
        Some((Verdict::Differs(_), _)) => String::new(),
        _ => format!(", but not in new machines; these ran {} cases before", cases - 1),
    }
}

impl Bench {
    fn new() -> Option<Self> {
        let (interpreter, translator) =
            (Side::new(Tier::Interpreter)?, Side::new(Tier::Translator)?);
        let sentinel = GuestMemory::new(&[(Gpa(0), SENTINEL)]).ok()?;
        let before = Random::new(SENTINEL).bytes(SENTINEL as usize);
        sentinel.write(Gpa(0), &before).ok()?;
        let of = |memory: &GuestMemory, at| Some(memory.page(Gpa(at))?.host.addr() as u64);
        let here = 0u64;
        let mut host = vec![
            std::ptr::from_ref(&here).addr() as u64,
            (run as *const ()).addr() as u64,
            of(&sentinel, 0x1000)?,
            of(&sentinel, 0)? + 0x100,
        ];
        for memory in [&interpreter.memory, &translator.memory] {
            host.extend([
                of(memory, 0)?,
                of(memory, layout::at::DATA)?,
                of(memory, layout::SLOTS_AT)?,
            ]);
        }
        let free = Side::free()?;
        let host = HostAddresses(host);
        let slots = vec![0; (SLOTS * layout::SLOT) as usize];
        Some(Self {
            interpreter,
            translator,
            free,
            sentinel,
            before,
            host,
            watch: Watch::new(),
            slots,
            cases: 0,
        })
    }

    /// Runs a case in all three.
    fn check(&mut self, case: &Case) -> Option<(Verdict, u64)> {
        let slot = self.cases % SLOTS;
        self.cases += 1;
        let slots = std::mem::take(&mut self.slots);
        let start = layout::start(case.choices, &case.code, slot, slots, &self.host);
        let checked = self.check_from(case, &start);
        self.slots = start.slots;
        checked
    }

    fn check_from(&mut self, case: &Case, start: &Start) -> Option<(Verdict, u64)> {
        self.interpreter.load(start)?;
        self.translator.load(start)?;
        let mut verdict = match self.counted(&case.cuts, u64::MAX) {
            None => Verdict::Same,
            Some(what) => self.look_closer(case, start, what)?,
        };
        let mut blocks = self.translator.new_blocks();
        if matches!(verdict, Verdict::Same) && self.interpreter.has_ended() {
            verdict = self.uncounted(case, start)?;
            blocks += self.free.new_blocks();
        }
        if self.sentinel.read_vec(Gpa(0), SENTINEL as usize).ok()? != self.before {
            verdict = Verdict::Differs("memory of the host was written".to_owned());
        }
        Some((verdict, blocks))
    }

    /// Runs both that count, cut after so many instructions each time, and together at most `most`.
    fn counted(&mut self, cuts: &[u64], most: u64) -> Option<String> {
        let mut left = most;
        for &cut in cuts {
            let cut = cut.min(left);
            left -= cut;
            let (one, other) = (self.interpreter.run(cut), self.translator.run(cut));
            let differs = difference(one, other, &self.interpreter, &self.translator);
            if differs.is_some() || left == 0 {
                return differs;
            }
        }
        None
    }

    /// A difference that was found: whether it is there before anything that is open.
    #[cold]
    fn look_closer(&mut self, case: &Case, start: &Start, what: String) -> Option<Verdict> {
        self.interpreter.load(start)?;
        let ran: u64 = case.cuts.iter().sum();
        let settled = open::settled(&mut self.interpreter, start, ran, true);
        if settled >= ran {
            return Some(Verdict::Differs(self.report(start, ran, &what)?));
        }
        self.interpreter.load(start)?;
        self.translator.load(start)?;
        Some(match self.counted(&case.cuts, settled) {
            None => Verdict::Open,
            Some(what) => Verdict::Differs(self.report(start, settled, &what)?),
        })
    }

    /// Runs the one that does not count to where the interpreter ended.
    fn uncounted(&mut self, case: &Case, start: &Start) -> Option<Verdict> {
        self.free.load(start)?;
        let guard = self.watch.over(&self.free);
        let other = self.free.run_to_the_end();
        drop(guard);
        let one = self.interpreter.run(0)?;
        let other = other.map(|mut other| {
            other.state.tsc = one.state.tsc;
            other.retired = one.retired;
            other
        });
        let Some(what) = difference(Some(one), other, &self.interpreter, &self.free) else {
            return Some(Verdict::Same);
        };
        self.interpreter.load(start)?;
        let ran: u64 = case.cuts.iter().sum();
        let settled = open::settled(&mut self.interpreter, start, ran, false);
        Some(if settled < ran {
            Verdict::Open
        } else {
            Verdict::Differs(self.report(start, ran, &format!("uncounted, {what}"))?)
        })
    }

    /// A difference, with what came before it.
    #[cold]
    fn report(&mut self, start: &Start, most: u64, what: &str) -> Option<String> {
        self.interpreter.load(start)?;
        let trace = open::trace(&mut self.interpreter, start, most);
        Some(format!("{what}\n{trace}\nregisters {:#x?}", start.state.gpr))
    }
}

fn difference(
    one: Option<Seen>,
    other: Option<Seen>,
    interpreter: &Side,
    translator: &Side,
) -> Option<String> {
    let memory = memory_differences(interpreter, translator);
    if one == other && one.is_some() && memory.is_empty() {
        return None;
    }
    Some(match (one, other) {
        (Some(one), Some(other)) => {
            let (first, second) = (format!("{one:#x?}"), format!("{other:#x?}"));
            let lines = first.lines().zip(second.lines()).filter(|(one, other)| one != other);
            let lines: Vec<_> = lines.take(32).collect();
            format!(
                "after {} and {} instructions, rip {:#x} {:#x}\n{lines:#?}\nmemory {memory:#?}",
                one.retired, other.retired, one.state.rip, other.state.rip
            )
        }
        _ => "one of them failed".to_owned(),
    })
}

/// Stops machines that run for too long.
struct Watch(Arc<Mutex<Watched>>);

#[derive(Default)]
struct Watched {
    /// The machine that runs, and how often it was looked at.
    running: Option<(Arc<dyn VcpuHandle>, u32)>,
}

/// While it lives, a machine is watched.
struct Guard<'a>(&'a Watch);

impl Watch {
    fn new() -> Self {
        let watched = Arc::<Mutex<Watched>>::default();
        let weak = Arc::downgrade(&watched);
        std::thread::spawn(move || {
            while let Some(watched) = weak.upgrade() {
                if let Some((handle, looks)) = &mut lock(&watched).running {
                    *looks += 1;
                    if *looks > PATIENCE {
                        handle.stop();
                    }
                }
                drop(watched);
                std::thread::sleep(LOOK);
            }
        });
        Self(watched)
    }

    fn over(&self, side: &Side) -> Guard<'_> {
        lock(&self.0).running = Some((side.vcpu.handle(), 0));
        Guard(self)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).running = None;
    }
}

fn lock(watched: &Mutex<Watched>) -> MutexGuard<'_, Watched> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

fn make(random: &mut Random) -> Vec<u8> {
    let how = random.byte();
    let mut bytes = random.bytes(8);
    bytes.push(how);
    bytes.extend(random.bytes(usize::from(how >> 6)));
    bytes.extend(user::program(random));
    bytes
}
