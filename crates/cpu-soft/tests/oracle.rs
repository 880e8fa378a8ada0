//! The interpreter against the host's own processor.
//!
//! Every instruction of 64-bit user mode that the integer, SSE, x87 and MMX families handle runs
//! natively and in the interpreter, from the same random state: registers, flags, x87, vectors,
//! memory, and whether and how it faults must agree. Flags that the SDM leaves undefined and that
//! we do not reproduce are masked by name in `undefined.rs`.
//!
//! * `RIAD_ORACLE_CASES=n` multiplies the number of cases (default 1: some seconds).
//! * `RIAD_ORACLE_SEED=n` starts from another seed; the one in use is printed.
//! * `RIAD_ORACLE_ONLY=text` takes only instructions whose `iced-x86` name contains `text`.
//! * `RIAD_ORACLE_UNDEFINED=1` compares undefined flags too (the host must be like ours: Intel).
//! * `RIAD_ORACLE_KEEP_GOING=1` reports every instruction's first difference, not just one.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[path = "oracle/generate.rs"]
mod generate;
#[path = "oracle/guest.rs"]
mod guest;
#[path = "oracle/native.rs"]
mod native;
#[path = "oracle/random.rs"]
mod random;
#[path = "oracle/select.rs"]
mod select;
#[path = "oracle/state.rs"]
mod state;
#[path = "oracle/undefined.rs"]
mod undefined;

use std::collections::BTreeMap;

use generate::Case;
use guest::Guest;
use native::Native;
use random::Random;

/// Cases of each instruction in an ordinary run.
const CASES: u64 = 200;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_user_instruction_agrees_with_the_processor() {
    let cases = CASES * variable("RIAD_ORACLE_CASES").unwrap_or(1);
    let seed = variable("RIAD_ORACLE_SEED").unwrap_or(0x5eed);
    let only = std::env::var("RIAD_ORACLE_ONLY").unwrap_or_default();
    let keep_going = std::env::var_os("RIAD_ORACLE_KEEP_GOING").is_some();
    println!("seed {seed}, {cases} cases of each instruction");

    let mut native = Native::new().expect("the oracle's fixed addresses are free");
    let mut guest = Guest::new();
    let mut differences = BTreeMap::new();
    let mut untried = Vec::new();
    let (mut instructions, mut ran, mut faulted) = (0, 0u64, 0u64);
    let mut window = Box::new([0; state::WINDOW_LEN]);
    Random::new(seed).fill(&mut window[..]);
    for code in select::codes().filter(|code| format!("{code:?}").contains(&only)) {
        instructions += 1;
        let ran_before = ran;
        let mut random = Random::new(seed ^ (code as u64) << 32);
        for number in 0..cases {
            let Some(case) = Case::generate(code, &mut random, &window) else { continue };
            if undefined::destination(&case) {
                continue;
            }
            let theirs = native.run(&case);
            let ours = guest.run(&case);
            ran += 1;
            faulted += u64::from(theirs.fault.is_some());
            let difference = state::difference(&case, &theirs, &ours);
            if difference.is_empty() {
                continue;
            }
            differences.insert(format!("{code:?}"), format!("case {number}: {case}\n{difference}"));
            break;
        }
        if ran == ran_before {
            untried.push(code);
        }
        if !keep_going && !differences.is_empty() {
            break;
        }
    }
    println!("{instructions} instructions, {ran} cases, {faulted} of them faults");
    println!("the generator makes no case of {untried:?}");
    assert!(ran > 0, "no instruction was tried");
    for (code, report) in &differences {
        println!("--- {code}\n{report}");
    }
    let names: Vec<_> = differences.keys().collect();
    assert!(differences.is_empty(), "{} instructions differ (seed {seed}): {names:?}", names.len());
}
