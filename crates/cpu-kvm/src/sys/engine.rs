//! A machine in the kernel: memory slots, interrupt routes, time, and its processors.
#![expect(unsafe_code, reason = "the kernel is told where guest memory lies")]

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kvm_bindings::{
    KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CAP_EXIT_ON_EMULATION_FAILURE,
    KVM_CAP_PMU_CAPABILITY, KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, KVM_MEM_LOG_DIRTY_PAGES,
    KVM_PMU_CAP_DISABLE, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK, KVM_X2APIC_API_USE_32BIT_IDS,
    KVM_X86_QUIRK_FIX_HYPERCALL_INSN, KVM_X86_QUIRK_LINT0_REENABLED,
    KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS, kvm_enable_cap, kvm_msi, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use riad_clock::SharedClock;
use riad_cpu::x86::{LapicState, VcpuState, model, msr as number};
use riad_cpu::{Bus, Engine, Error, ExitKind, Exits, Vcpu, VcpuConfig};
use riad_memory::{Gpa, GuestMemory, PAGE_SIZE};

use super::bells::Bells;
use super::cpuid::Answers;
use super::host::{Kind, create_vm, enough_processors, open, unavailable};
use super::kick::Mailbox;
use super::lapic::Stopped;
use super::routes::{PINS, Routes};
use super::time::{TimeBase, hold_back};
use super::vcpu::KvmVcpu;
use super::{lapic, msr, routes, time};
use crate::Model;

/// Three pages that the kernel keeps for itself on Intel processors that cannot run real mode (KVM API
/// 4.36), and one more for its page table (4.37): below the end of the address space's first 4 GiB,
/// where a PC has its firmware and ours has nothing.
const TSS: usize = 0xfffb_d000;
const IDENTITY_MAP: u64 = 0xfffb_c000;

/// Habits that the kernel is asked to leave (KVM API 7.30).
const QUIRKS: u32 = KVM_X86_QUIRK_LINT0_REENABLED
    | KVM_X86_QUIRK_FIX_HYPERCALL_INSN
    | KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS;

/// A memory slot that is there for a moment only, and its page: higher than any address that guests
/// can form.
const SPARE_SLOT: u32 = 31;
const SPARE_PAGE: u64 = 1 << (model::PHYSICAL_BITS + 1);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A machine's processors, lent by the host's kernel.
#[derive(Debug)]
pub struct KvmEngine {
    shared: Arc<Shared>,
}

/// What a machine's processors have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) vm: VmFd,
    pub(super) memory: GuestMemory,
    pub(super) clock: SharedClock,
    pub(super) config: VcpuConfig,
    pub(super) answers: Answers,
    pub(super) time: TimeBase,
    pub(super) exits: Exits,
    /// Instructions that software processors ran in place of KVM.
    pub(super) rescued: AtomicU64,
    /// The level of the 8259 pair's output.
    pub(super) extint: AtomicBool,
    /// IA32_ARCH_CAPABILITIES as guests read it.
    vulnerabilities: u64,
    /// What kind of KVM this is.
    pub(super) kind: Kind,
    /// Held while [`forget_shadows`](Self::forget_shadows) is at it.
    shadows: Mutex<()>,
    bells: Bells,
    routes: Mutex<Routes>,
    logging: Mutex<bool>,
    cells: RwLock<Vec<Arc<Cell>>>,
}

/// A processor as others reach it.
#[derive(Debug)]
pub(super) struct Cell {
    pub(super) id: u32,
    pub(super) mailbox: Mailbox,
    fd: Mutex<VcpuFd>,
    /// How its timer stands while guest time does not move.
    pub(super) timer: Mutex<Option<Stopped>>,
    /// The initial count of a one-shot count that was over when the state was set, and that the
    /// kernel was not given.
    pub(super) spent: AtomicU32,
}

impl Cell {
    /// The processor's descriptor; whoever runs it holds this.
    pub(super) fn fd(&self) -> MutexGuard<'_, VcpuFd> {
        lock(&self.fd)
    }
}

impl KvmEngine {
    /// An engine for this machine.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with what to do.
    pub fn new(
        memory: GuestMemory,
        clock: SharedClock,
        config: VcpuConfig,
        model: Model,
    ) -> Result<Self, Error> {
        let kvm = open()?;
        let most = u32::try_from(kvm.get_max_vcpus()).unwrap_or(u32::MAX);
        enough_processors(config.count, most)?;
        let answers = Answers::new(&kvm, model, config.count, config.tsc_khz)?;
        let vm = create_vm(&kvm)?;
        let refused = |what: &str, error: kvm_ioctls::Error| {
            unavailable(format!("KVM refused {what}: {error}; use --engine soft"))
        };
        vm.set_identity_map_address(IDENTITY_MAP).map_err(|e| refused("its own pages", e))?;
        vm.set_tss_address(TSS).map_err(|e| refused("its own pages", e))?;
        let enable = |cap, arg| {
            vm.enable_cap(&kvm_enable_cap { cap, args: [arg, 0, 0, 0], ..Default::default() })
        };
        enable(KVM_CAP_SPLIT_IRQCHIP, u64::from(PINS))
            .map_err(|e| refused("local APICs of its own", e))?;
        // Both are for processors with numbers beyond 254: kernels without them have none.
        let ids = KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK;
        let _ = enable(KVM_CAP_X2APIC_API, u64::from(ids));
        // What this kernel would do otherwise than a processor does, for the sake of old guests: it would
        // take an 8259's interrupts after INIT unasked, write another maker's instruction over a
        // VMCALL, and run MONITOR and MWAIT where CPUID has none. Since Linux 5.18.
        let known = kvm.check_extension_raw(KVM_CAP_DISABLE_QUIRKS2.into()).max(0) as u32;
        let _ = enable(KVM_CAP_DISABLE_QUIRKS2, u64::from(QUIRKS & known));
        // Performance counters, which AMD's guests have unasked, are not in the table of state. Since 5.18.
        let _ = enable(KVM_CAP_PMU_CAPABILITY, u64::from(KVM_PMU_CAP_DISABLE));
        // Since Linux 5.14. Without it, what KVM cannot emulate for user code raises #UD in the guest.
        let _ = enable(KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1);
        let vulnerabilities = vulnerabilities(&kvm);
        let host_khz = host_khz(&kvm)?;
        let shared = Shared {
            vm,
            time: TimeBase::new(host_khz, config.tsc_khz),
            memory,
            clock,
            config,
            answers,
            exits: Exits::default(),
            rescued: AtomicU64::new(0),
            extint: AtomicBool::new(false),
            vulnerabilities,
            kind: Kind::here(),
            shadows: Mutex::new(()),
            bells: Bells::new(&kvm),
            routes: Mutex::default(),
            logging: Mutex::new(false),
            cells: RwLock::default(),
        };
        shared.map_memory(false)?;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What CPUID answers (leaf, subleaf, EAX, EBX, ECX, EDX), when that is the host's own.
    #[must_use]
    pub fn host_cpu(&self) -> Option<Vec<[u32; 6]>> {
        let answers = &self.shared.answers;
        (answers.model == Model::Host).then(|| answers.list())
    }

    /// As [`Engine::add_vcpu`], with the concrete type.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn vcpu(&self, id: u32, bus: Arc<dyn Bus>) -> Result<KvmVcpu, Error> {
        let shared = &self.shared;
        let refused = |what: &str, error: kvm_ioctls::Error| {
            shared.failed(id, format!("KVM refused {what}: {error}"))
        };
        let fd = shared.vm.create_vcpu(u64::from(id)).map_err(|e| refused("a processor", e))?;
        shared.set_frequency(&fd)?;
        fd.set_cpuid2(&shared.answers.of(id)?).map_err(|e| refused("the CPU model", e))?;
        // CPUID offers no kvmclock, no time that was stolen and no faults that come later, and their
        // registers are not in the table of state: a guest that writes to them gets a fault, as from a
        // processor. Since Linux 5.10.
        let _ = fd.enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
            args: [1, 0, 0, 0],
            ..Default::default()
        });
        if shared.answers.tells_vulnerabilities() {
            // A host that does not take it reads it to the guest as it likes.
            let _ = msr::set(&fd, &[(number::ARCH_CAPABILITIES, shared.vulnerabilities)]);
        }
        let cell = Arc::new(Cell {
            id,
            mailbox: Mailbox::new(),
            fd: Mutex::new(fd),
            timer: Mutex::new(None),
            spent: AtomicU32::new(0),
        });
        let mut vcpu = KvmVcpu::new(Arc::clone(shared), Arc::clone(&cell), bus);
        vcpu.set_state(&VcpuState::reset(id))?;
        shared.cells.write().unwrap_or_else(PoisonError::into_inner).push(cell);
        Ok(vcpu)
    }
}

impl Shared {
    pub(super) fn failed(&self, vcpu: u32, reason: String) -> Error {
        Error::Failed { engine: "kvm", vcpu, reason }
    }

    pub(super) fn logging(&self) -> MutexGuard<'_, bool> {
        lock(&self.logging)
    }

    /// Tells the kernel where guest memory lies (KVM API 4.35), again to begin the log of writes.
    pub(super) fn map_memory(&self, log: bool) -> Result<(), Error> {
        for (slot, region) in (0..).zip(self.memory.regions()) {
            let page = self.memory.page(region.start);
            let host = page.map_or(std::ptr::null_mut(), |page| page.host);
            let region = kvm_userspace_memory_region {
                slot,
                flags: if log { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
                guest_phys_addr: region.start.0,
                memory_size: region.len,
                userspace_addr: host as u64,
            };
            // SAFETY: the region is a mapping of this length that lives as long as `memory`, which
            // this machine holds, and processors hold this machine.
            let done = unsafe { self.vm.set_user_memory_region(region) };
            done.map_err(|error| {
                unavailable(format!(
                    "KVM refused {} MiB of guest memory at {:#x}: {error}; give the machine less with \
                     --memory",
                    region.memory_size >> 20,
                    region.guest_phys_addr
                ))
            })?;
        }
        Ok(())
    }

    /// Has a kernel that keeps shadows of the guest's page tables drop them. It notices what its own
    /// processors write to the tables and nobody else's writes, so that a shadow would stay as it was
    /// when a software processor edits a table. All shadows go when a memory slot does.
    pub(super) fn forget_shadows(&self) -> Result<(), Error> {
        if !self.kind.shadows {
            return Ok(());
        }
        let _one = lock(&self.shadows);
        let Some(page) = self.memory.regions().first().and_then(|r| self.memory.page(r.start))
        else {
            return Ok(());
        };
        for memory_size in [PAGE_SIZE, 0] {
            let region = kvm_userspace_memory_region {
                slot: SPARE_SLOT,
                guest_phys_addr: SPARE_PAGE,
                memory_size,
                userspace_addr: page.host as u64,
                flags: 0,
            };
            // SAFETY: a page of guest memory, which lives as long as this machine; or none.
            unsafe { self.vm.set_user_memory_region(region) }.map_err(|error| {
                unavailable(format!("KVM refused a slot for memory: {error}; use --engine soft"))
            })?;
        }
        Ok(())
    }

    /// Makes a processor's time stamp counter run as fast as the machine's.
    fn set_frequency(&self, fd: &VcpuFd) -> Result<(), Error> {
        let (host, wanted) = (fd.get_tsc_khz().unwrap_or(0), self.config.tsc_khz);
        if host == wanted || fd.set_tsc_khz(wanted).is_ok() {
            return Ok(());
        }
        Err(unavailable(format!(
            "the machine's time stamp counter runs at {wanted} kHz and this host's at {host} kHz, and \
             its processor cannot scale one to the other; use --engine soft"
        )))
    }

    /// Hands a message to the kernel's local APICs (KVM API 4.71). A device's is one system call and
    /// no lock.
    fn send(&self, address: u64, data: u32) {
        if routes::has_end((address, data))
            && let Err(error) = lock(&self.routes).learn(&self.vm, (address, data))
        {
            tracing::warn!(%error, "the end of a level-triggered interrupt may go unnoticed");
        }
        let msi = kvm_msi {
            address_lo: address as u32,
            address_hi: (address >> 32) as u32,
            data,
            ..Default::default()
        };
        if let Err(error) = self.vm.signal_msi(msi) {
            tracing::debug!(%error, address, data, "a message reached nobody");
        }
    }

    /// Level-triggered vectors of a state that is about to go on: their ends are wanted too.
    pub(super) fn expect_ends(&self, apic: &LapicState) -> Result<(), Error> {
        let mut routes = lock(&self.routes);
        for vector in lapic::level_vectors(apic) {
            let address = 0xfee0_0000 | u64::from(apic.id & 0xff) << 12;
            routes.learn(&self.vm, (address, u32::from(vector) | 1 << 15))?;
        }
        Ok(())
    }

    fn cells(&self) -> Vec<Arc<Cell>> {
        self.cells.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The frequency of the host's time stamp counter in kHz, as the kernel counts it.
fn host_khz(kvm: &Kvm) -> Result<u32, Error> {
    let probe = create_vm(kvm)?;
    let vcpu = probe.create_vcpu(0).map_err(|e| unavailable(format!("no processor: {e}")))?;
    vcpu.get_tsc_khz().map_err(|error| {
        unavailable(format!(
            "the host's time stamp counter has no constant frequency ({error}); use --engine soft"
        ))
    })
}

/// What guests may believe of their processor's vulnerabilities: what `riad-v1` says and the host
/// confirms. A guest must not go without a mitigation that the processor below it needs.
fn vulnerabilities(kvm: &Kvm) -> u64 {
    let entry =
        kvm_bindings::kvm_msr_entry { index: number::ARCH_CAPABILITIES, ..Default::default() };
    let Ok(mut list) = kvm_bindings::Msrs::from_entries(&[entry]) else { return 0 };
    match kvm.get_msrs(&mut list) {
        Ok(1) => list.as_slice()[0].data & number::ARCH_CAPABILITIES_VALUE,
        _ => 0,
    }
}

impl Engine for KvmEngine {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn add_vcpu(&self, id: u32, bus: Arc<dyn Bus>) -> Result<Box<dyn Vcpu>, Error> {
        Ok(Box::new(self.vcpu(id, bus)?))
    }

    fn send_msi(&self, address: u64, data: u32) {
        self.shared.send(address, data);
    }

    fn hang_bell(&self, at: Gpa, bell: BorrowedFd<'_>) -> bool {
        match self.shared.bells.hang(&self.shared.vm, at, bell) {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, at = at.0, "a notification leaves the guest");
                false
            }
        }
    }

    fn take_bell_down(&self, at: Gpa, bell: BorrowedFd<'_>) {
        if let Err(error) = self.shared.bells.take_down(&self.shared.vm, at, bell) {
            tracing::warn!(%error, at = at.0, "KVM keeps a bell that nobody hears");
        }
    }

    fn set_extint(&self, level: bool) {
        self.shared.extint.store(level, Ordering::SeqCst);
        if level && let Some(first) = self.shared.cells().first() {
            first.mailbox.kick();
        }
    }

    fn memory(&self) -> &GuestMemory {
        &self.shared.memory
    }

    fn clock(&self) -> &SharedClock {
        &self.shared.clock
    }

    fn pause(&self) {
        if !self.shared.time.pause() {
            return;
        }
        for cell in self.shared.cells() {
            let fd = cell.fd();
            let Ok(mut page) = fd.get_lapic() else { continue };
            let deadline = msr::get(&fd, &[number::TSC_DEADLINE]).ok().and_then(|v| v[0]);
            let timer = Stopped::take(&mut page, deadline.unwrap_or(0));
            if fd.set_lapic(&page).is_ok() {
                let _ = msr::set(&fd, &[(number::TSC_DEADLINE, 0)]);
                *lock(&cell.timer) = Some(timer);
            }
        }
    }

    fn resume(&self) {
        let Some(skipped) = self.shared.time.resume() else { return };
        for cell in self.shared.cells() {
            let fd = cell.fd();
            hold_back(&fd, skipped);
            let Some(timer) = lock(&cell.timer).take() else { continue };
            // It goes on with the counts that it had left. A one-shot count that was over stays so.
            if let Ok(mut page) = fd.get_lapic() {
                timer.put(&mut page);
                match lapic::over(&page) {
                    Some(initial) => cell.spent.store(initial, Ordering::Relaxed),
                    None => {
                        let _ = fd.set_lapic(&page);
                    }
                }
            }
            if timer.deadline != 0 {
                let _ = msr::set(&fd, &[(number::TSC_DEADLINE, timer.deadline)]);
            }
        }
    }

    fn collect_dirty(&self) -> Result<(), Error> {
        self.shared.collect_dirty()
    }

    fn exits(&self) -> Vec<(&'static str, u64)> {
        let mut counts = self.shared.exits.list(&ExitKind::ALL);
        counts.push(("rescued-instructions", self.shared.rescued.load(Ordering::Relaxed)));
        counts
    }
}

impl Shared {
    /// A processor's counter.
    pub(super) fn tsc(&self, fd: &VcpuFd) -> u64 {
        time::guest_tsc(fd, &self.time)
    }
}
