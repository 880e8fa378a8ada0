//! The table: which kinds of threads there are, and what each may ask of the kernel.

use crate::calls::{
    Call, DISK, EVENTS, FILES, INTERNET, KVM, LIFE, MEMORY, NEW_CODE, NEW_MACHINE, NEW_THREADS,
    OPEN_KVM, READ, RESOLVERS, SERVE, SHORT_DISK, SIGNAL_OWN, STREAMS, SWITCH, TAP, TERMINAL,
    TREES, WRITE,
};

/// What some processes have for their machines, and others have not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Means {
    /// Its guest runs on KVM.
    pub(crate) kvm: bool,
    /// Its guest is on a network that is in the process.
    pub(crate) network: bool,
}

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
    /// Serves a network card, and is the network behind it: a tap device that is open, or where the
    /// process has a network of its own, the sockets of its guest.
    Network,
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
    /// Moves frames between the machines of a named network, in a process of its own: over streams that
    /// are open, and those of whoever comes.
    Switch,
}

impl Kind {
    /// All kinds. A new one is added here, and gets its line in [`groups`](Self::groups).
    pub(crate) const ALL: [Self; 11] = [
        Self::Vcpu,
        Self::Timer,
        Self::Gatherer,
        Self::Disk,
        Self::Device,
        Self::Network,
        Self::Listener,
        Self::Control,
        Self::Builder,
        Self::Command,
        Self::Switch,
    ];

    /// Those that every machine has.
    pub(crate) const MACHINE: [Self; 7] = [
        Self::Vcpu,
        Self::Timer,
        Self::Gatherer,
        Self::Disk,
        Self::Device,
        Self::Network,
        Self::Listener,
    ];

    /// What threads of this kind may ask.
    fn groups(self) -> &'static [&'static [Call]] {
        match self {
            Self::Vcpu => &[LIFE, MEMORY, WRITE, EVENTS, SIGNAL_OWN, SHORT_DISK],
            Self::Gatherer => &[LIFE, MEMORY, WRITE],
            Self::Timer => &[LIFE, MEMORY, WRITE, SIGNAL_OWN],
            Self::Disk => &[LIFE, MEMORY, WRITE, READ, DISK],
            Self::Device => &[LIFE, MEMORY, WRITE, READ, EVENTS, STREAMS],
            Self::Network => &[LIFE, MEMORY, WRITE, READ, EVENTS, STREAMS, TAP],
            Self::Switch => &[LIFE, MEMORY, WRITE, READ, EVENTS, STREAMS, SWITCH],
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

    /// As [`groups`](Self::groups), in a process that has such means.
    pub(crate) fn calls(self, means: Means) -> impl Iterator<Item = &'static Call> {
        let Means { kvm, network } = means;
        let builds = matches!(self, Self::Control | Self::Builder | Self::Command);
        let on_kvm: &[&[Call]] = match (kvm, builds) {
            (false, _) => &[],
            (true, false) => &[KVM],
            (true, true) => &[KVM, OPEN_KVM],
        };
        let on_network: &[&[Call]] = match (network, self) {
            (true, Self::Network) => &[INTERNET, RESOLVERS],
            _ => &[],
        };
        self.groups().iter().chain(on_kvm).chain(on_network).flat_map(|group| group.iter())
    }

    /// Whether a process whose first thread is of this kind runs a guest, and so has threads of other
    /// kinds. One that does not starts none, and keeps to its kind's calls from the first.
    pub(crate) fn runs_a_guest(self) -> bool {
        !matches!(self, Self::Switch)
    }

    /// Its place in tables.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}
