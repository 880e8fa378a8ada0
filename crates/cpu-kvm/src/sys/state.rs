//! The table of state, to and from the kernel (KVM API 4.1 to 4.4 of each group: REGS, SREGS, XSAVE,
//! XCRS, DEBUGREGS, MSRS, LAPIC, VCPU_EVENTS, MP_STATE).
#![expect(unsafe_code, reason = "KVM_SET_XSAVE takes a structure of open length")]

use std::sync::atomic::Ordering;

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_SIPI_RECEIVED, KVM_MP_STATE_UNINITIALIZED, KVM_VCPUEVENT_VALID_NMI_PENDING,
    KVM_VCPUEVENT_VALID_SHADOW, kvm_debugregs, kvm_dtable, kvm_mp_state, kvm_regs, kvm_segment,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use riad_cpu::Error;
use riad_cpu::x86::{
    Activity, ControlRegisters, DebugRegisters, DescriptorTable, Events, Fpu, LapicState, Msrs,
    Segment, Segments, VcpuState, cr0, efer, msr as number,
};
use riad_cpu_soft::stand_in::Undelivered;

use super::engine::{Cell, Shared, lock};
use super::lapic::Stopped;
use super::{lapic, msr, time, xsave};

/// Bits of `kvm_vcpu_events.interrupt.shadow` (KVM API 4.31).
const SHADOW_MOV_SS: u8 = 1;
const SHADOW_STI: u8 = 2;

/// A refusal, named.
fn refused(what: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |error| Error::BadState(format!("KVM refused the processor's {what}: {error}"))
}

fn from_segment(s: &kvm_segment) -> Segment {
    let bit = |value: u8, at: u32| u32::from(value & 1) << at;
    let dpl = u32::from(s.dpl & 3) << 5;
    if s.unusable != 0 {
        let rights = Segment::UNUSABLE | dpl;
        return Segment { selector: s.selector, base: s.base, limit: s.limit, rights };
    }
    let rights = u32::from(s.type_ & 15)
        | bit(s.s, 4)
        | dpl
        | bit(s.present, 7)
        | bit(s.avl, 12)
        | bit(s.l, 13)
        | bit(s.db, 14)
        | bit(s.g, 15);
    Segment { selector: s.selector, base: s.base, limit: s.limit, rights }
}

fn to_segment(s: &Segment) -> kvm_segment {
    let bit = |at: u32| (s.rights >> at & 1) as u8;
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: s.kind(),
        present: bit(7),
        dpl: s.dpl(),
        db: bit(14),
        s: bit(4),
        l: bit(13),
        g: bit(15),
        avl: bit(12),
        unusable: u8::from(s.unusable()),
        padding: 0,
    }
}

fn to_regs(state: &VcpuState) -> kvm_regs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = state.gpr;
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip: state.rip,
        rflags: state.rflags,
    }
}

fn gpr(r: &kvm_regs) -> [u64; 16] {
    [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12,
        r.r13, r.r14, r.r15,
    ]
}

fn to_sregs(state: &VcpuState) -> kvm_sregs {
    let Segments { es, cs, ss, ds, fs, gs, ldtr, tr } = &state.segments;
    let table = |t: &DescriptorTable| kvm_dtable { base: t.base, limit: t.limit, padding: [0; 3] };
    let c = &state.control;
    let mut code = to_segment(cs);
    if c.efer & efer::LMA == 0 {
        // The bit means nothing outside of long mode, and KVM does not take it there.
        code.l = 0;
    }
    kvm_sregs {
        cs: code,
        ds: to_segment(ds),
        es: to_segment(es),
        fs: to_segment(fs),
        gs: to_segment(gs),
        ss: to_segment(ss),
        tr: to_segment(tr),
        ldt: to_segment(ldtr),
        gdt: table(&state.gdtr),
        idt: table(&state.idtr),
        cr0: c.cr0,
        cr2: c.cr2,
        cr3: c.cr3,
        cr4: c.cr4,
        cr8: u64::from(state.apic.tpr >> 4),
        efer: c.efer,
        apic_base: state.apic.base,
        interrupt_bitmap: [0; 4],
    }
}

/// The area that the kernel keeps, as bytes.
fn bytes(area: &kvm_xsave) -> xsave::Area {
    let mut all = [0; xsave::SIZE];
    for (at, word) in all.chunks_exact_mut(4).zip(area.region) {
        at.copy_from_slice(&word.to_le_bytes());
    }
    all
}

fn words(all: &xsave::Area) -> kvm_xsave {
    let mut area = kvm_xsave::default();
    for (word, at) in area.region.iter_mut().zip(all.chunks_exact(4)) {
        *word = u32::from_le_bytes([at[0], at[1], at[2], at[3]]);
    }
    area
}

fn set_fpu(fd: &VcpuFd, fpu: &Fpu, avx: bool) -> Result<(), Error> {
    // What the table does not know stays as the kernel has it.
    let mut area = bytes(&fd.get_xsave().map_err(refused("XSAVE area"))?);
    xsave::write(&mut area, fpu, avx);
    let area = words(&area);
    // SAFETY: no feature that would make the area longer than the structure was asked for
    // (ARCH_REQ_XCOMP_GUEST_PERM), so the kernel reads 4096 bytes.
    unsafe { fd.set_xsave(&area) }.map_err(refused("XSAVE area"))
}

fn set_xcr0(fd: &VcpuFd, value: u64) -> Result<(), Error> {
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0].value = value;
    match fd.set_xcrs(&xcrs) {
        Err(_) if value == 1 => Ok(()), // a model without XSAVE has nothing else
        done => done.map_err(refused("XCR0")),
    }
}

fn set_debug(fd: &VcpuFd, debug: &DebugRegisters) -> Result<(), Error> {
    let DebugRegisters { address, dr6, dr7 } = *debug;
    fd.set_debug_regs(&kvm_debugregs { db: address, dr6, dr7, ..Default::default() })
        .map_err(refused("debug registers"))
}

/// Shadows and blocking; nothing is left to be delivered. `nmi`: whether an NMI that waits is set too.
fn set_events(fd: &VcpuFd, events: &Events, nmi: bool) -> Result<(), Error> {
    let mut wanted = kvm_vcpu_events { flags: KVM_VCPUEVENT_VALID_SHADOW, ..Default::default() };
    wanted.interrupt.shadow = match (events.interrupt_shadow, events.mov_ss_shadow) {
        (_, true) => SHADOW_MOV_SS,
        (true, false) => SHADOW_STI,
        (false, false) => 0,
    };
    wanted.nmi.masked = u8::from(events.nmi_blocked);
    if nmi {
        wanted.nmi.pending = u8::from(events.nmi_pending);
        wanted.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
    }
    fd.set_vcpu_events(&wanted).map_err(refused("pending events"))
}

fn set_activity(fd: &VcpuFd, activity: Activity) -> Result<(), Error> {
    let mp_state = match activity {
        Activity::Running | Activity::Shutdown => KVM_MP_STATE_RUNNABLE,
        Activity::Halted => KVM_MP_STATE_HALTED,
        // Takes a start-up message at once, as after INIT.
        Activity::WaitForSipi => KVM_MP_STATE_INIT_RECEIVED,
    };
    fd.set_mp_state(kvm_mp_state { mp_state }).map_err(refused("activity"))
}

/// What was accepted and not delivered, and must be before the processor's state is one of the
/// table's. INT n, INT3 and INTO are not: their instruction is run again.
pub(super) fn undelivered(events: &kvm_vcpu_events) -> Option<Undelivered> {
    let e = &events.exception;
    if e.injected != 0 || e.pending != 0 {
        if matches!(e.nr, 3 | 4) {
            return None;
        }
        let code = (e.has_error_code != 0).then_some(e.error_code as u16);
        return Some(Undelivered::Exception { vector: e.nr, code });
    }
    if events.nmi.injected != 0 {
        return Some(Undelivered::Interrupt(2));
    }
    let i = &events.interrupt;
    (i.injected != 0 && i.soft == 0).then_some(Undelivered::Interrupt(i.nr))
}

/// Whether there is anything at all that is half way to the guest.
pub(super) fn is_between(events: &kvm_vcpu_events) -> bool {
    events.exception.injected | events.exception.pending | events.nmi.injected != 0
        || events.interrupt.injected != 0
}

impl Shared {
    /// All of a processor's state. `known`: registers that this kernel has no place for.
    pub(super) fn read(&self, cell: &Cell, fd: &VcpuFd, known: &Msrs) -> Result<VcpuState, Error> {
        // First: the question makes the kernel act on INIT and start-up messages that wait (KVM API
        // 4.38), which change everything else.
        let activity = fd.get_mp_state().map_err(refused("activity"))?.mp_state;
        let regs = fd.get_regs().map_err(refused("registers"))?;
        let sregs = fd.get_sregs().map_err(refused("segment registers"))?;
        let debug = fd.get_debug_regs().map_err(refused("debug registers"))?;
        let events = fd.get_vcpu_events().map_err(refused("pending events"))?;
        let xcr0 = fd.get_xcrs().map_or(1, |xcrs| {
            let list = &xcrs.xcrs[..(xcrs.nr_xcrs as usize).min(xcrs.xcrs.len())];
            list.iter().find(|xcr| xcr.xcr == 0).map_or(1, |xcr| xcr.value)
        });
        let fpu = xsave::read(&bytes(&fd.get_xsave().map_err(refused("XSAVE area"))?));
        let mut page = fd.get_lapic().map_err(refused("local APIC"))?;
        let mut deadline = msr::get(fd, &[number::TSC_DEADLINE])?[0].unwrap_or(0);
        if let Some(timer) = *lock(&cell.timer) {
            timer.put(&mut page);
            deadline = timer.deadline;
        }
        let mut apic = lapic::read(&page, sregs.apic_base, cell.id, deadline, self.clock.now());
        lapic::show_spent(&mut apic, cell.spent.load(Ordering::Relaxed));
        let table = |t: &kvm_dtable| DescriptorTable { base: t.base, limit: t.limit };
        let shadow = events.interrupt.shadow;
        let start_up = activity == KVM_MP_STATE_SIPI_RECEIVED;
        Ok(VcpuState {
            gpr: gpr(&regs),
            rip: regs.rip,
            rflags: regs.rflags,
            segments: Segments {
                es: from_segment(&sregs.es),
                cs: from_segment(&sregs.cs),
                ss: from_segment(&sregs.ss),
                ds: from_segment(&sregs.ds),
                fs: from_segment(&sregs.fs),
                gs: from_segment(&sregs.gs),
                ldtr: from_segment(&sregs.ldt),
                tr: from_segment(&sregs.tr),
            },
            gdtr: table(&sregs.gdt),
            idtr: table(&sregs.idt),
            control: ControlRegisters {
                cr0: sregs.cr0,
                cr2: sregs.cr2,
                cr3: sregs.cr3,
                cr4: sregs.cr4,
                efer: sregs.efer,
                xcr0,
            },
            debug: DebugRegisters { address: debug.db, dr6: debug.dr6, dr7: debug.dr7 },
            fpu,
            msrs: msr::read(fd, known)?,
            apic,
            events: Events {
                activity: match activity {
                    KVM_MP_STATE_HALTED => Activity::Halted,
                    KVM_MP_STATE_UNINITIALIZED
                    | KVM_MP_STATE_INIT_RECEIVED
                    | KVM_MP_STATE_SIPI_RECEIVED => Activity::WaitForSipi,
                    _ => Activity::Running,
                },
                interrupt_shadow: shadow != 0,
                mov_ss_shadow: shadow & SHADOW_MOV_SS != 0,
                nmi_pending: events.nmi.pending != 0,
                nmi_blocked: events.nmi.masked != 0 || events.nmi.injected != 0,
                pending_debug: 0,
                init_pending: false,
                start_up_pending: start_up.then_some(events.sipi_vector as u8),
            },
            tsc: self.tsc(fd),
        })
    }

    /// Sets segment and control registers, and has the kernel forget translations: others than its
    /// own processors may have written to the page tables, and flushed what they changed by
    /// instructions that the kernel never saw. It forgets when a control register changes; TS can in
    /// every mode.
    fn set_sregs(&self, fd: &VcpuFd, sregs: &kvm_sregs) -> Result<(), Error> {
        let other = kvm_sregs { cr0: sregs.cr0 ^ cr0::TS, ..*sregs };
        for sregs in [&other, sregs] {
            fd.set_sregs(sregs).map_err(refused("segment and control registers"))?;
        }
        self.forget_shadows()
    }

    /// Makes all of a processor's state this, but for events that KVM has no place for.
    pub(super) fn write(&self, cell: &Cell, fd: &VcpuFd, state: &VcpuState) -> Result<(), Error> {
        self.set_sregs(fd, &to_sregs(state))?;
        set_xcr0(fd, state.control.xcr0)?;
        set_fpu(fd, &state.fpu, self.answers.avx)?;
        set_debug(fd, &state.debug)?;
        fd.set_regs(&to_regs(state)).map_err(refused("registers"))?;
        msr::write(fd, &state.msrs, None)?;
        time::set_guest_tsc(fd, &self.time, state.tsc);
        self.expect_ends(&state.apic)?;
        self.write_apic(cell, fd, &state.apic)?;
        set_events(fd, &state.events, true)?;
        set_activity(fd, state.events.activity)
    }

    /// Sets the local APIC and its timer, which stands still while guest time does.
    fn write_apic(&self, cell: &Cell, fd: &VcpuFd, apic: &LapicState) -> Result<(), Error> {
        let mut page = lapic::write(apic, self.clock.now());
        let mut deadline = apic.tsc_deadline;
        let spent = if lapic::is_spent(apic) { apic.timer_initial } else { 0 };
        cell.spent.store(spent, Ordering::Relaxed);
        let stopped = self.time.is_paused().then(|| Stopped::take(&mut page, deadline));
        if stopped.is_some() {
            deadline = 0;
        }
        *lock(&cell.timer) = stopped;
        fd.set_lapic(&page).map_err(refused("local APIC"))?;
        msr::set(fd, &[(number::TSC_DEADLINE, deadline)])
            .map_err(|_| Error::BadState("KVM refused the timer's deadline".to_owned()))
    }

    /// Makes what instructions change of a processor's state this: all but the local APIC, the time
    /// stamp counter, and an NMI that waits, which may have moved on meanwhile.
    pub(super) fn write_changed(
        &self,
        fd: &VcpuFd,
        before: &VcpuState,
        after: &VcpuState,
    ) -> Result<(), Error> {
        self.set_sregs(fd, &to_sregs(after))?;
        if before.control.xcr0 != after.control.xcr0 {
            set_xcr0(fd, after.control.xcr0)?;
        }
        if before.fpu != after.fpu {
            set_fpu(fd, &after.fpu, self.answers.avx)?;
        }
        if before.debug != after.debug {
            set_debug(fd, &after.debug)?;
        }
        fd.set_regs(&to_regs(after)).map_err(refused("registers"))?;
        if before.msrs != after.msrs {
            msr::write(fd, &after.msrs, Some(&before.msrs))?;
        }
        set_events(fd, &after.events, false)?;
        if before.events.activity != after.events.activity {
            set_activity(fd, after.events.activity)?;
        }
        Ok(())
    }
}
