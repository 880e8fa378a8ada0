//! What CPUID says under KVM (KVM API 4.46, 4.20): `riad-v1` less what the host lacks, or the host's.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::{Cap, Kvm};
use riad_cpu::Error;
use riad_cpu::x86::model::{self, CpuidContext};

use super::host::unavailable;
use crate::Model;

/// A register of CPUID's answer.
#[derive(Clone, Copy)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

use Register::{Eax, Ebx, Ecx, Edx};

/// Features of `riad-v1` that depend on the host: leaf, subleaf, register, bit, name.
const FEATURES: [(u32, u32, Register, u32, &str); 37] = [
    (1, 0, Ecx, 0, "SSE3"),
    (1, 0, Ecx, 9, "SSSE3"),
    (1, 0, Ecx, 13, "CMPXCHG16B"),
    (1, 0, Ecx, 17, "PCID"),
    (1, 0, Ecx, 19, "SSE4.1"),
    (1, 0, Ecx, 20, "SSE4.2"),
    (1, 0, Ecx, 21, "x2APIC"),
    (1, 0, Ecx, 23, "POPCNT"),
    (1, 0, Ecx, 24, "TSC deadline"),
    (1, 0, Ecx, 26, "XSAVE"),
    (1, 0, Ecx, 30, "RDRAND"),
    (1, 0, Edx, 2, "DE"),
    (1, 0, Edx, 3, "PSE"),
    (1, 0, Edx, 8, "CMPXCHG8B"),
    (1, 0, Edx, 11, "SYSENTER"),
    (1, 0, Edx, 12, "MTRR"),
    (1, 0, Edx, 13, "PGE"),
    (1, 0, Edx, 15, "CMOV"),
    (1, 0, Edx, 16, "PAT"),
    (1, 0, Edx, 23, "MMX"),
    (1, 0, Edx, 24, "FXSR"),
    (1, 0, Edx, 25, "SSE"),
    (1, 0, Edx, 26, "SSE2"),
    (7, 0, Ebx, 0, "FSGSBASE"),
    (7, 0, Ebx, 1, "TSC_ADJUST"),
    (7, 0, Ebx, 7, "SMEP"),
    (7, 0, Ebx, 9, "ERMS"),
    (7, 0, Ebx, 10, "INVPCID"),
    (7, 0, Ebx, 18, "RDSEED"),
    (7, 0, Ebx, 20, "SMAP"),
    (7, 0, Ecx, 2, "UMIP"),
    (0xd, 1, Eax, 0, "XSAVEOPT"),
    (0x8000_0001, 0, Edx, 11, "SYSCALL"),
    (0x8000_0001, 0, Edx, 20, "NX"),
    (0x8000_0001, 0, Edx, 26, "1 GiB pages"),
    (0x8000_0001, 0, Edx, 27, "RDTSCP"),
    (0x8000_0001, 0, Edx, 29, "64-bit mode"),
];

/// No 64-bit kernel runs without these.
const INDISPENSABLE: [&str; 5] = ["CMOV", "FXSR", "SSE2", "64-bit mode", "SYSCALL"];

/// What this host's KVM supports.
fn supported(kvm: &Kvm) -> Result<CpuId, Error> {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(|error| {
        unavailable(format!("KVM does not tell what the processor can do ({error})"))
    })
}

fn answer(list: &CpuId, leaf: u32, subleaf: u32) -> [u32; 4] {
    list.as_slice()
        .iter()
        .find(|entry| entry.function == leaf && entry.index == subleaf)
        .map_or([0; 4], |entry| [entry.eax, entry.ebx, entry.ecx, entry.edx])
}

/// Whether guests can have a feature. Deadline timers have a capability of their own (KVM API 4.46).
fn has(kvm: &Kvm, list: &CpuId, feature: &(u32, u32, Register, u32, &str)) -> bool {
    let &(leaf, subleaf, register, bit, name) = feature;
    name == "TSC deadline" && kvm.check_extension(Cap::TscDeadlineTimer)
        || answer(list, leaf, subleaf)[register as usize] & 1 << bit != 0
}

/// Features of `riad-v1` that guests lack here.
pub(super) fn lacking(kvm: &Kvm) -> Result<Vec<&'static str>, Error> {
    let list = supported(kvm)?;
    let lacking = FEATURES.iter().filter(|feature| !has(kvm, &list, feature));
    Ok(lacking.map(|feature| feature.4).collect())
}

/// What CPUID answers on a machine's processors, but for what differs between them.
#[derive(Debug)]
pub(super) struct Answers {
    entries: Vec<kvm_cpuid_entry2>,
    /// The processors have the upper halves of vector registers.
    pub(super) avx: bool,
    /// `riad-v1`, all of it: what is saved goes on anywhere.
    pub(super) model: Model,
}

impl Answers {
    /// The answers of a model on this host.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the host lacks what nothing runs without.
    pub(super) fn new(kvm: &Kvm, which: Model, count: u32, tsc_khz: u32) -> Result<Self, Error> {
        let list = supported(kvm)?;
        let lacking: Vec<_> = FEATURES.iter().filter(|feature| !has(kvm, &list, feature)).collect();
        let missed: Vec<_> =
            lacking.iter().map(|f| f.4).filter(|name| INDISPENSABLE.contains(name)).collect();
        if !missed.is_empty() {
            return Err(unavailable(format!(
                "this host's processor or its KVM lacks {}, which guests of today need; use --engine \
                 soft",
                missed.join(", ")
            )));
        }
        let context =
            CpuidContext { apic_id: 0, count, tsc_khz, osxsave: false, apic_enabled: true };
        let mut entries = Vec::new();
        match which {
            Model::Riad => {
                for (leaf, subleaf, indexed) in leaves() {
                    let [eax, ebx, ecx, edx] = model::cpuid(leaf, subleaf, &context);
                    let mut entry = entry(leaf, subleaf, indexed, [eax, ebx, ecx, edx]);
                    for &&(at, sub, register, bit, _) in &lacking {
                        if (at, sub) == (leaf, subleaf) {
                            *field(&mut entry, register) &= !(1 << bit);
                        }
                    }
                    entries.push(entry);
                }
            }
            Model::Host => entries.extend(host(&list, &context)),
        }
        narrow(&mut entries, &list);
        let avx = entries.iter().any(|e| e.function == 1 && e.ecx & 1 << 28 != 0);
        Ok(Self { entries, avx, model: which })
    }

    /// The answers of processor `id`.
    pub(super) fn of(&self, id: u32) -> Result<CpuId, Error> {
        let mut entries = self.entries.clone();
        for entry in &mut entries {
            match entry.function {
                1 => entry.ebx = entry.ebx & 0x00ff_ffff | id << 24,
                0xb | 0x1f => entry.edx = id,
                _ => {}
            }
        }
        CpuId::from_entries(&entries)
            .map_err(|_| Error::BadState("CPUID has more answers than KVM takes".to_owned()))
    }

    /// The answers: leaf, subleaf, EAX, EBX, ECX, EDX.
    pub(super) fn list(&self) -> Vec<[u32; 6]> {
        let row = |e: &kvm_cpuid_entry2| [e.function, e.index, e.eax, e.ebx, e.ecx, e.edx];
        self.entries.iter().map(row).collect()
    }

    /// Whether CPUID says that there is IA32_ARCH_CAPABILITIES.
    pub(super) fn tells_vulnerabilities(&self) -> bool {
        self.entries.iter().any(|e| e.function == 7 && e.index == 0 && e.edx & 1 << 29 != 0)
    }
}

/// The leaves of `riad-v1`: leaf, subleaf, whether the subleaf matters.
fn leaves() -> Vec<(u32, u32, bool)> {
    let mut all: Vec<_> = [0, 1, 2, 5, 6, 0x15, 0x16].map(|leaf| (leaf, 0, false)).to_vec();
    all.extend((0..5).map(|sub| (4, sub, true)));
    all.push((7, 0, true));
    all.extend((0..3).map(|sub| (0xb, sub, true)));
    all.extend((0..2).map(|sub| (0xd, sub, true)));
    all.extend([0x4000_0000, 0x4000_0010].map(|leaf| (leaf, 0, false)));
    all.extend((0x8000_0000..=0x8000_0004).map(|leaf| (leaf, 0, false)));
    all.extend((0x8000_0006..=0x8000_0008).map(|leaf| (leaf, 0, false)));
    all
}

fn entry(
    leaf: u32,
    subleaf: u32,
    indexed: bool,
    [eax, ebx, ecx, edx]: [u32; 4],
) -> kvm_cpuid_entry2 {
    let flags = if indexed { KVM_CPUID_FLAG_SIGNIFCANT_INDEX } else { 0 };
    kvm_cpuid_entry2 {
        function: leaf,
        index: subleaf,
        flags,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    }
}

fn field(entry: &mut kvm_cpuid_entry2, register: Register) -> &mut u32 {
    match register {
        Eax => &mut entry.eax,
        Ebx => &mut entry.ebx,
        Ecx => &mut entry.ecx,
        Edx => &mut entry.edx,
    }
}

/// Components that `--cpu host` gives in XCR0: x87, SSE, AVX. Larger ones are not in the table of
/// state, and what is not in it does not exist for a guest of ours.
const HOST_XCR0: u32 = 7;

/// Where extended leaves begin.
const EXTENDED: u32 = 0x8000_0000;

/// Extended leaves that `--cpu host` gives as the host has them: name, caches, power, sizes, and how the
/// newer of AMD's processors behave. Others tell of what guests do not get: virtualisation, topology by
/// other numbers than ours, encrypted memory (whose register a guest reads before it can take a fault),
/// performance monitoring.
const HOST_EXTENDED: [u32; 10] = [
    0x8000_0000,
    0x8000_0001,
    0x8000_0002,
    0x8000_0003,
    0x8000_0004,
    0x8000_0005,
    0x8000_0006,
    0x8000_0007,
    0x8000_0008,
    0x8000_0021,
];

/// The host's own answers, with our topology, hypervisor and frequency, and without what the table of
/// state has no place for.
fn host(list: &CpuId, context: &CpuidContext) -> Vec<kvm_cpuid_entry2> {
    const OURS: [u32; 7] = [4, 0xb, 0x15, 0x16, 0x1f, 0xa, 0x14];
    let mut entries: Vec<_> = list
        .as_slice()
        .iter()
        .filter(|e| !OURS.contains(&e.function) && e.function >> 28 != 4)
        .filter(|e| e.function < EXTENDED || HOST_EXTENDED.contains(&e.function))
        .filter(|e| e.function != 0xd || e.index < 3)
        .copied()
        .collect();
    let ours = leaves().into_iter().filter(|(leaf, ..)| OURS.contains(leaf) || leaf >> 28 == 4);
    entries.extend(ours.map(|(leaf, subleaf, indexed)| {
        entry(leaf, subleaf, indexed, model::cpuid(leaf, subleaf, context))
    }));
    // "AuthenticAMD", or "HygonGenuine".
    let is_amd = matches!(answer(list, 0, 0)[1].to_le_bytes(), [b'A', b'u', ..] | [b'H', b'y', ..]);
    for entry in &mut entries {
        match (entry.function, entry.index) {
            (0, _) => entry.eax = entry.eax.clamp(0x16, 0x16),
            (1, _) => {
                let ours = model::cpuid(1, 0, context);
                entry.ebx = ours[1];
                // x2APIC, TSC deadline, hypervisor; no MONITOR, no virtualisation inside, and nothing
                // of performance monitoring (DS, DTES64, DS-CPL, PDCM).
                let hidden = 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 15;
                entry.ecx = entry.ecx & !hidden | 1 << 21 | 1 << 24 | 1 << 31;
                entry.edx = entry.edx & !(1 << 21) | ours[3] & (1 << 9 | 1 << 28);
            }
            (7, 0) => {
                // Neither MPX nor AVX-512, nor shadow stacks, keys, AMX, user interrupts, traces.
                const AVX512: u32 =
                    1 << 16 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 30 | 1 << 31;
                entry.ebx &= !(AVX512 | 1 << 14 | 1 << 25 | 1 << 2 | 1 << 4 | 1 << 11);
                entry.ecx &= 1 << 2 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 22;
                entry.edx &= 1 << 4 | 1 << 10 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 31;
            }
            (7, _) => (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0),
            (0xd, 0) => {
                entry.eax &= HOST_XCR0;
                entry.edx = 0;
                entry.ecx = if entry.eax & 4 != 0 { 832 } else { model::XSAVE_SIZE };
                entry.ebx = entry.ecx;
            }
            (0xd, 1) => {
                // XSAVEOPT and XGETBV: the compacted form would bring XSS.
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (entry.eax & 5, 0, 0, 0);
            }
            // No virtualisation inside (SVM, SKINIT), no SSE4A, IBS, LWP and FMA4, no performance
            // counters; and no topology but leaf 0xb's (TOPOEXT).
            (0x8000_0001, _) => {
                entry.ecx &= !(1 << 2
                    | 1 << 6
                    | 1 << 10
                    | 1 << 12
                    | 1 << 15
                    | 1 << 16
                    | 1 << 22
                    | 1 << 23
                    | 1 << 24
                    | 1 << 28);
            }
            (0x8000_0008, _) => {
                // AMD's guests without leaf 0x8000001e count their processors here (APM 3, E.4.7);
                // VIRT_SPEC_CTRL is in nobody's table.
                entry.ebx &= !(1 << 25);
                entry.ecx = if is_amd { context.count.saturating_sub(1) & 0xff } else { 0 };
                entry.edx = 0;
            }
            _ => {}
        }
    }
    entries
}

/// Physical addresses are as wide as the model's, or as the host's where those are narrower.
fn narrow(entries: &mut [kvm_cpuid_entry2], list: &CpuId) {
    let bits = answer(list, 0x8000_0008, 0)[0] & 0xff;
    for entry in entries.iter_mut().filter(|e| e.function == 0x8000_0008) {
        let wanted = if bits == 0 { model::PHYSICAL_BITS } else { bits.min(model::PHYSICAL_BITS) };
        entry.eax = entry.eax & !0xff | wanted;
    }
}

#[cfg(test)]
#[path = "cpuid_test.rs"]
mod tests;
