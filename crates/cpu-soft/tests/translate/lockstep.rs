//! Random programs in lockstep: every block of them is compared, and not just how they end.

use riad_cpu_soft::Tier;

use crate::generate;
use crate::random::Random;
use crate::side::{Side, difference};

/// Programs of an ordinary run.
const CASES: u64 = 400;
/// Instructions of a program, at most.
const MOST: u64 = 3_000;
/// Programs that run in the same machines.
const TOGETHER: u64 = 16;

#[test]
fn random_programs_agree_block_by_block() {
    let factor = std::env::var("RIAD_TRANSLATE_CASES").ok().and_then(|n| n.parse().ok());
    let new = || (Side::new(Tier::Interpreter), Side::new(Tier::Lockstep));
    let (mut interpreter, mut lockstep) = new();
    for number in 0..CASES * factor.unwrap_or(1) {
        if number % TOGETHER == 0 {
            (interpreter, lockstep) = new();
        }
        // Other programs than those of `differential`.
        let own = 0x10c_57e9 ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let case = generate::case(&mut Random::new(own));
        let start = case.with(&case.program);
        interpreter.load(&start);
        lockstep.load(&start);
        // A block that differs ends the run with an error, which says all.
        let differs = difference(&interpreter.run(MOST), &lockstep.run(MOST));
        assert!(differs.is_empty(), "program {number}\n{differs}{}", case.program);
        interpreter.settle();
        lockstep.settle();
    }
}
