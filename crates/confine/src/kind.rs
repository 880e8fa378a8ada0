//! The table: which kinds of threads there are, and what each may ask of the kernel.

use crate::calls::{
    Call, DISK, EVENTS, FILES, KVM, LIFE, MEMORY, NEW_CODE, NEW_MACHINE, NEW_THREADS, OPEN_KVM,
    READ, SERVE, SHORT_DISK, SIGNAL_OWN, STREAMS, TERMINAL, TREES, WRITE,
};

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Runs a processor: the thread that a mistake in the translator would give away. Devices answer
    /// to registers here, so consoles are written, other threads woken, and short requests to disks served.
    Vcpu,
    /// Wakes others in time.
    Timer,
    /// Gathers memory into huge pages.
    Gatherer,
    /// Serves a block device from files that are open.
    Disk,
    /// Serves another device: entropy, console, vsock. Knows only streams that are open, or that it
    /// makes itself between two ends of this process.
    Device,
    /// Hears of the guest: its agent's first word, its end.
    Listener,
    /// Serves a machine from beside it in a process of its own: hears of its agent, answers on its
    /// control socket, writes its state down, builds it anew when it restarts.
    Control,
    /// Makes an image in a process of its own: unpacks what was fetched, keeps the store of images, and
    /// has a guest configure the packages.
    Builder,
    /// Does so in the process of the command that was typed: carries streams, knows a terminal, and
    /// has no files at all.
    Command,
}

impl Kind {
    /// All kinds. A new one is added here, and gets its line in [`groups`](Self::groups).
    pub(crate) const ALL: [Self; 9] = [
        Self::Vcpu,
        Self::Timer,
        Self::Gatherer,
        Self::Disk,
        Self::Device,
        Self::Listener,
        Self::Control,
        Self::Builder,
        Self::Command,
    ];

    /// Those that every machine has.
    pub(crate) const MACHINE: [Self; 6] =
        [Self::Vcpu, Self::Timer, Self::Gatherer, Self::Disk, Self::Device, Self::Listener];

    /// What threads of this kind may ask.
    fn groups(self) -> &'static [&'static [Call]] {
        match self {
            Self::Vcpu => &[LIFE, MEMORY, WRITE, EVENTS, SIGNAL_OWN, SHORT_DISK],
            Self::Gatherer => &[LIFE, MEMORY, WRITE],
            Self::Timer => &[LIFE, MEMORY, WRITE, SIGNAL_OWN],
            Self::Disk => &[LIFE, MEMORY, WRITE, READ, DISK],
            Self::Device => &[LIFE, MEMORY, WRITE, READ, EVENTS, STREAMS],
            Self::Listener => &[LIFE, MEMORY, WRITE, READ, STREAMS],
            Self::Control => &[
                LIFE,
                MEMORY,
                WRITE,
                READ,
                EVENTS,
                STREAMS,
                SERVE,
                FILES,
                DISK,
                SIGNAL_OWN,
                NEW_MACHINE,
                NEW_CODE,
                NEW_THREADS,
            ],
            Self::Builder => &[
                LIFE,
                MEMORY,
                WRITE,
                READ,
                EVENTS,
                STREAMS,
                FILES,
                TREES,
                DISK,
                SIGNAL_OWN,
                NEW_MACHINE,
                NEW_CODE,
                NEW_THREADS,
            ],
            Self::Command => &[
                LIFE,
                MEMORY,
                WRITE,
                READ,
                EVENTS,
                STREAMS,
                DISK,
                SIGNAL_OWN,
                TERMINAL,
                NEW_MACHINE,
                NEW_CODE,
                NEW_THREADS,
            ],
        }
    }

    /// As [`groups`](Self::groups), in a process whose machine runs on KVM or does not.
    pub(crate) fn calls(self, kvm: bool) -> impl Iterator<Item = &'static Call> {
        let builds = matches!(self, Self::Control | Self::Builder | Self::Command);
        let on_kvm: &[&[Call]] = match (kvm, builds) {
            (false, _) => &[],
            (true, false) => &[KVM],
            (true, true) => &[KVM, OPEN_KVM],
        };
        self.groups().iter().chain(on_kvm).flat_map(|group| group.iter())
    }

    /// Its place in tables.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}
