//! Random programs in both tiers.

use riad_cpu::Exit;
use riad_cpu_soft::Tier;

use crate::generate::{self, Case};
use crate::program::Program;
use crate::random::Random;
use crate::side::{Side, Start, difference, difference_but_time};

/// Programs of an ordinary run.
const CASES: u64 = 1500;
/// Instructions of a program, at most.
const MOST: u64 = 3_000;

/// Programs that run in the same machines: what those keep of earlier code must not be seen, but
/// pages whose code changes too often are left to the interpreter.
const TOGETHER: u64 = 16;

/// Both tiers' machines.
pub(crate) struct Pair {
    pub(crate) interpreter: Side,
    pub(crate) translator: Side,
    /// The translator when nobody counts instructions.
    free: Side,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self {
            interpreter: Side::new(Tier::Interpreter),
            translator: Side::new(Tier::Translator),
            free: Side::free(),
        }
    }

    /// Runs both for so many instructions more; what differs.
    pub(crate) fn run(&mut self, most: u64) -> String {
        let one = self.interpreter.run(most);
        difference(&one, &self.translator.run(most))
    }

    /// Puts each side where the other is.
    fn swap(&mut self) {
        let one = self.interpreter.outcome(Exit::Limit);
        let other = self.translator.outcome(Exit::Limit);
        self.interpreter.load(&Start { state: other.state, memory: other.memory });
        self.translator.load(&Start { state: one.state, memory: one.memory });
    }

    /// Runs to the end, then to random limits and from there to the end. Tells how many
    /// instructions there are to the end.
    pub(crate) fn check(&mut self, start: &Start, cuts: u64, seed: u64) -> Result<u64, String> {
        let mut random = Random::new(seed);
        let mut length = MOST;
        for n in 0..=cuts {
            self.interpreter.load(start);
            self.translator.load(start);
            let cut = if n == 0 { MOST } else { 1 + random.below(length) };
            let differs = self.run(cut);
            if !differs.is_empty() {
                return Err(format!("after {cut} instructions\n{differs}"));
            }
            if n == 0 {
                let ran = self.interpreter.vcpu.cpu.retired - self.interpreter.begun();
                length = ran.max(1);
                if self.interpreter.has_ended() {
                    self.free.load(start);
                    let end = self.interpreter.outcome(Exit::Stopped);
                    let differs = difference_but_time(end, self.free.run_to_the_end());
                    if !differs.is_empty() {
                        return Err(format!("to the end, uncounted\n{differs}"));
                    }
                }
            } else {
                if n % 2 == 1 && !self.interpreter.has_ended() {
                    self.swap();
                }
                let differs = self.run(MOST);
                if !differs.is_empty() {
                    return Err(format!("to the end, cut after {cut} instructions\n{differs}"));
                }
            }
            self.interpreter.settle();
            self.translator.settle();
        }
        Ok(length)
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_programs_agree_with_the_interpreter() {
    let cases = CASES * variable("RIAD_TRANSLATE_CASES").unwrap_or(1);
    let seed = variable("RIAD_TRANSLATE_SEED").unwrap_or(0x5eed);
    let from = variable("RIAD_TRANSLATE_FROM").unwrap_or(0);
    println!("seed {seed}, {cases} programs");
    let keep_going = std::env::var_os("RIAD_TRANSLATE_KEEP_GOING").is_some();
    let mut pair = Pair::new();
    let (mut instructions, mut ended) = (0, 0u64);
    let mut differing = Vec::new();
    for number in from..from + cases {
        if number % TOGETHER == 0 {
            pair = Pair::new();
        }
        let own = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let case = generate::case(&mut Random::new(own));
        match pair.check(&case.with(&case.program), 3, own) {
            Ok(length) => {
                instructions += length;
                ended += u64::from(length < MOST);
            }
            Err(found) => {
                println!("{}", report(&case, number, seed, own, &found));
                differing.push(number);
                assert!(keep_going, "program {number} of seed {seed} differs");
                pair = Pair::new();
            }
        }
    }
    println!("{instructions} instructions; {ended} programs came to their end");
    assert!(differing.is_empty(), "{} differ: {differing:?}", differing.len());
    assert!(instructions > 10 * cases, "the programs hardly run");
}

/// The difference, with the least program that still differs.
fn report(case: &Case, number: u64, seed: u64, own: u64, found: &str) -> String {
    let differs = |program: &Program| Pair::new().check(&case.with(program), 12, own).err();
    let mut program = case.program.clone();
    let Some(mut least) = differs(&program) else {
        return format!(
            "program {number} of seed {seed} differs, but not in fresh machines: something is kept \
             from earlier programs; run from an earlier one with RIAD_TRANSLATE_FROM\n{found}\
             {program}{:#x?}",
            case.start.state
        );
    };
    loop {
        let before = program.items.len();
        let mut n = before;
        while n > 0 {
            n -= 1;
            let smaller = program.without(n);
            if let Some(found) = differs(&smaller) {
                (program, least) = (smaller, found);
            }
        }
        if program.items.len() == before {
            break;
        }
    }
    let state = &case.start.state;
    let registers: String =
        state.gpr.iter().enumerate().map(|(n, value)| format!("  r{n}={value:#x}")).collect();
    format!(
        "program {number} of seed {seed} (RIAD_TRANSLATE_SEED={seed} RIAD_TRANSLATE_FROM={number}) \
         differs: {found}\n--- the least that differs, {least}{program}{registers}\n  rip={:#x} \
         rflags={:#x} mxcsr={:#x}\n  cr0={:#x} level {}",
        program.start,
        state.rflags,
        state.fpu.mxcsr,
        state.control.cr0,
        state.segments.ss.dpl()
    )
}
