//! The translator against the interpreter: user code of any bytes, from any registers, in both
//! tiers, whole and cut after some instructions. What the guest can see must be the same.

use std::sync::{Arc, OnceLock};

use riad_clock::ManualClock;
use riad_cpu::x86::{
    Activity, DescriptorTable, Segment, Segments, VcpuState, cr0, cr4, efer, rflags,
};
use riad_cpu::{Bus, Exit, Limit, Vcpu, VcpuConfig, VcpuHandle};
use riad_cpu_soft::{Options, SoftEngine, SoftVcpu, Tier};
use riad_memory::{Gpa, GuestMemory};

use super::{Target, no_seeds};
use crate::input::Input;
use crate::random::Random;
use crate::seeds::code;

/// The translator.
pub(super) const TRANSLATE: Target = Target {
    name: "translate",
    what: "user code of any bytes, translated and interpreted, which must agree",
    run,
    seeds: no_seeds,
    generate: Some(make),
    words: &[&[0xeb], &[0xe2, 0xf0], &[0x75, 0xe0], &[0xe8], &[0xc3], &[0xf0, 0x48], &[0x0f]],
};

/// Instructions of a case.
const INSTRUCTIONS: u64 = 400;
/// Bytes of memory.
const MEMORY: u64 = 0x1_4000;
/// The port that ends a run.
const STOP: u8 = 0xf4;

/// Where things are, linear and physical: user pages from [`at::CODE`] on.
mod at {
    pub(super) const TABLES: u64 = 0x1000;
    pub(super) const IDT: u64 = 0x5000;
    pub(super) const GDT: u64 = 0x6000;
    pub(super) const TSS: u64 = 0x6800;
    pub(super) const HANDLERS: u64 = 0x7000;
    /// The top of the handlers' stack, which is the page below.
    pub(super) const FRAME: u64 = 0x9000;
    /// Two pages that can be written.
    pub(super) const CODE: u64 = 0xa000;
    /// Two that can be written and one that cannot; nothing before and behind.
    pub(super) const DATA: u64 = 0xd000;
    pub(super) const STACK: u64 = 0x1_1000;
}

/// Stops the processor that asks for it.
#[derive(Default)]
struct World(OnceLock<Arc<dyn VcpuHandle>>);

impl Bus for World {
    fn mmio_read(&self, _: Gpa, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn mmio_write(&self, _: Gpa, _: &[u8]) {}
    fn port_read(&self, _: u16, data: &mut [u8]) {
        data.fill(0xff);
    }
    fn port_write(&self, port: u16, _: &[u8]) {
        if let Some(handle) = self.0.get().filter(|_| port == u16::from(STOP)) {
            handle.stop();
        }
    }
    fn acknowledge_extint(&self) -> u8 {
        0x30
    }
    fn end_of_interrupt(&self, _: u8) {}
}

/// One tier's machine.
struct Side {
    memory: GuestMemory,
    vcpu: SoftVcpu,
    ended: Option<Exit>,
}

/// What the guest can see, but for status flags that nobody reads any more.
#[derive(Debug, PartialEq)]
struct Seen {
    exit: Exit,
    retired: u64,
    state: VcpuState,
    memory: Vec<u8>,
}

impl Side {
    fn new(tier: Tier, image: &[u8], state: &VcpuState) -> Option<Self> {
        let memory = GuestMemory::new(&[(Gpa(0), MEMORY)]).ok()?;
        memory.write(Gpa(0), image).ok()?;
        let clock = Arc::new(ManualClock::new(0).driven(1));
        let config = VcpuConfig { count: 1, tsc_khz: 1_000_000 };
        let options = Options { tier, code_cache: 1 << 20 };
        let world = Arc::new(World::default());
        let engine = SoftEngine::with_options(memory.clone(), clock, config, options);
        let mut vcpu = engine.vcpu(0, world.clone());
        world.0.set(vcpu.handle()).ok()?;
        vcpu.set_state(state).ok()?;
        Some(Self { memory, vcpu, ended: None })
    }

    /// Runs for so many instructions, or until a handler ends it.
    fn run(&mut self, most: u64) -> Option<Seen> {
        let exit = match self.ended {
            Some(exit) => exit,
            None => self.vcpu.run(Limit::Instructions(most)).ok()?,
        };
        if self.ended.is_none() && exit != Exit::Limit {
            self.ended = Some(exit);
            if self.vcpu.cpu.events.activity == Activity::Running {
                // Whether the request is seen before or after the HLT behind it is not promised.
                self.vcpu.run(Limit::Instructions(1)).ok()?;
            }
        }
        let mut state = self.vcpu.state().ok()?;
        state.rflags &= !rflags::STATUS;
        let mut memory = self.memory.read_vec(Gpa(0), MEMORY as usize).ok()?;
        for (n, mask) in rflags::STATUS.to_le_bytes().into_iter().enumerate() {
            memory[at::FRAME as usize - 24 + n] &= !mask;
        }
        Some(Seen { exit, retired: self.vcpu.cpu.retired, state, memory })
    }
}

/// Runs a case. Tells how many instructions it retired.
fn run(bytes: &[u8]) -> u64 {
    let mut input = Input::new(bytes);
    let (seed, cut) = (input.u64(), u64::from(input.u8()));
    let (image, state) = start(seed, input.rest());
    let mut retired = 0;
    for cut in [INSTRUCTIONS, 1 + cut] {
        let sides =
            [Tier::Interpreter, Tier::Translator].map(|tier| Side::new(tier, &image, &state));
        let [Some(mut interpreter), Some(mut translator)] = sides else { return 0 };
        for most in [cut, INSTRUCTIONS] {
            let (one, other) = (interpreter.run(most), translator.run(most));
            if one != other {
                differs(cut, most, one, other);
            }
        }
        retired = retired.max(interpreter.vcpu.cpu.retired);
    }
    retired
}

fn differs(cut: u64, most: u64, one: Option<Seen>, other: Option<Seen>) {
    let (Some(one), Some(other)) = (one, other) else { panic!("one of the tiers failed") };
    let bytes = one.memory.iter().zip(&other.memory).enumerate();
    let bytes: Vec<_> = bytes
        .filter(|(_, (one, other))| one != other)
        .map(|(at, (one, other))| format!("{at:#x}: {one:02x} {other:02x}"))
        .take(32)
        .collect();
    let (first, second) = (format!("{:#x?}", one.state), format!("{:#x?}", other.state));
    let lines: Vec<_> =
        first.lines().zip(second.lines()).filter(|(one, other)| one != other).collect();
    panic!(
        "cut after {cut}, run for {most}: the interpreter and the translator differ: {:?} {:?}, \
         {} and {} instructions, rip {:#x} {:#x}\n{lines:#?}\nmemory {bytes:#?}",
        one.exit, other.exit, one.retired, other.retired, one.state.rip, other.state.rip
    );
}

/// Memory and the processor at the beginning.
fn start(seed: u64, code: &[u8]) -> (Vec<u8>, VcpuState) {
    let mut random = Random::new(seed);
    let mut image = vec![0; MEMORY as usize];
    let mut put = |at: u64, bytes: &[u8]| {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    };
    for level in 0..3 {
        put(at::TABLES + level * 0x1000, &(at::TABLES + (level + 1) * 0x1000 + 7).to_le_bytes());
    }
    for page in 0..MEMORY >> 12 {
        let rights = match page << 12 {
            at::IDT..at::FRAME => 3,
            at::CODE..0xc000 | at::DATA..0xf000 | at::STACK..0x1_3000 => 7,
            // Cannot be written.
            0xf000 => 5,
            _ => 0,
        };
        put(at::TABLES + 0x3000 + page * 8, &(page << 12 | rights).to_le_bytes());
    }
    for vector in 0..256 {
        let to = at::HANDLERS + vector * 16;
        let gate = to & 0xffff | 0x08 << 16 | 1 << 32 | 0x8e << 40;
        put(at::IDT + vector * 16, &gate.to_le_bytes());
        put(to, &[0xe6, STOP, 0xf4, 0xeb, 0xfd]);
    }
    put(at::GDT + 8, &0x00af_9b00_0000_ffff_u64.to_le_bytes());
    put(at::TSS + 36, &at::FRAME.to_le_bytes());
    put(at::TSS + 0x66, &[0xff, 0xff]);
    put(at::CODE, &[0xcc; 0x2000]);
    // It ends by showing its flags: PUSHFQ, UD2.
    let code = predictable(&code[..code.len().min(0x1000)]);
    let from = at::CODE + 0x1000 - random.below(0x100) as u64;
    put(from, &code);
    put(from + code.len() as u64, &[0x9c, 0x0f, 0x0b]);
    put(at::DATA, &random.bytes(0x3000));
    put(at::STACK, &random.bytes(0x2000));

    let data = Segment { selector: 0x2b, base: 0, limit: u32::MAX, rights: 0xc0f3 };
    let mut state = VcpuState::flat_protected(0, 0);
    state.segments = Segments {
        es: data,
        cs: Segment { selector: 0x33, rights: 0xa0fb, ..data },
        ss: data,
        ds: data,
        fs: Segment { base: at::DATA, ..data },
        gs: Segment { base: at::DATA + 0x1800, ..data },
        ldtr: Segment { rights: Segment::UNUSABLE, ..Segment::default() },
        tr: Segment { selector: 0x40, base: at::TSS, limit: 0x67, rights: 0x8b },
    };
    state.gdtr = DescriptorTable { base: at::GDT, limit: 0xff };
    state.idtr = DescriptorTable { base: at::IDT, limit: 0xfff };
    state.control.cr0 = cr0::PE | cr0::PG | cr0::ET | cr0::NE | cr0::MP | cr0::WP;
    state.control.cr3 = at::TABLES;
    state.control.cr4 = cr4::PAE | cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::FSGSBASE;
    state.control.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
    for register in &mut state.gpr {
        *register = match random.below(4) {
            0 => random.edge(),
            1 => random.below(64) as u64,
            // Mostly where something is, and some of it across the end of a page.
            2 => at::DATA + random.below(0x3000) as u64,
            _ => at::DATA + 0x1000 - random.below(64) as u64,
        };
    }
    for register in &mut state.fpu.xmm {
        *register = u128::from(random.bits()) << 64 | u128::from(random.edge());
    }
    state.gpr[4] = at::STACK + 0x1000 + random.below(16) as u64 * 8;
    state.rip = from;
    state.rflags = rflags::ONE | random.bits() & rflags::STATUS;
    (image, state)
}

/// Without RDRAND and RDSEED, which say something else each time: 0F C7 with a register.
fn predictable(code: &[u8]) -> Vec<u8> {
    let mut code = code.to_vec();
    for at in 2..code.len() {
        if code[at - 2..at] == [0x0f, 0xc7] && code[at] >= 0xf0 {
            code[at] = 0x08;
        }
    }
    code
}

fn make(random: &mut Random) -> Vec<u8> {
    let mut bytes = random.bytes(9);
    let count = 2 + random.below(40);
    let jump_back = random.one_in(2);
    bytes.extend(code::instructions(random, count));
    if jump_back {
        // DEC R15D; JNZ back, near enough.
        let back = (bytes.len() - 9 + 5).min(120) as u8;
        bytes.extend([0x41, 0xff, 0xcf, 0x75, back.wrapping_neg()]);
    }
    bytes
}
