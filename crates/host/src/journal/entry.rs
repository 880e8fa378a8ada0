//! One entry of the record.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::time::{now, text};
use crate::printable;

/// One entry: something that happened to a machine. Fields are only ever added, and what an older
/// Riad does not know it shows by its `message`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the format: [`SCHEMA`](Self::SCHEMA).
    pub schema: u32,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The same, as people read it (RFC 3339, UTC).
    pub time: String,
    /// The machine's name at the time.
    pub machine: String,
    /// The machine's id, which stays when it is renamed.
    pub id: String,
    /// What kind of thing happened: see [`Event`].
    pub event: String,
    /// One sentence.
    pub message: String,
    /// Who did it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What the event has besides.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

/// What can happen to a machine. The names are those in the record, and never change.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It was made from an image.
    Created {
        /// Its name, for people.
        image: String,
    },
    /// It was made as a copy of another.
    Cloned {
        /// The other's name.
        from: String,
    },
    /// It has another name.
    Renamed {
        /// The name it had.
        from: String,
    },
    /// It is no more.
    Deleted {},
    /// Something of it was changed.
    Set {
        /// What, as in `riad set`.
        what: String,
        /// What it was.
        from: String,
        /// What it is.
        to: String,
        /// `now`, or `next start`.
        when: String,
    },
    /// A disk was attached to it: at once if it runs, and at its later starts.
    Attached {
        /// The disk's name.
        disk: String,
        /// Whether it is only read.
        read_only: bool,
    },
    /// A disk was detached from it; one that runs is asked to let it go at once.
    Detached {
        /// The disk's name.
        disk: String,
    },
    /// It is on a named network: at once if it runs, and at its later starts.
    Joined {
        /// The network's name.
        network: String,
        /// Its address there.
        address: String,
    },
    /// It is on a named network no more; one that runs is asked to leave it at once.
    Left {
        /// The network's name.
        network: String,
    },
    /// Its process has begun.
    Starting {
        /// The process's number.
        pid: u32,
        /// What runs it.
        engine: String,
    },
    /// A stage of its start began.
    Stage {
        /// Which.
        stage: String,
    },
    /// Its agent answers: commands can be run in it.
    AgentReady {
        /// Milliseconds since the start began.
        ms: u64,
    },
    /// Its init system has brought everything up, or said that it could not.
    SystemReady {
        /// The init system's own word.
        word: String,
    },
    /// Its guest restarted itself.
    Restarted {
        /// How often since its process began.
        reboots: u32,
    },
    /// It was told to stop.
    Stopping {
        /// Whether its plug is pulled.
        force: bool,
    },
    /// It is off.
    Stopped {
        /// How: `powered-off` or `forced`.
        how: String,
    },
    /// It is off because something went wrong.
    Failed {
        /// In which stage.
        stage: String,
        /// What.
        reason: String,
    },
    /// Its process went without a word, which was noticed only now.
    Killed {
        /// In which stage.
        stage: String,
    },
    /// Its guest was made to fit its user: account, keys, locale, time zone, name.
    SetUp {},
    /// That did not work.
    SetUpFailed {
        /// What went wrong.
        reason: String,
    },
    /// A provisioning script began to run.
    ProvisionStarted {
        /// Its name.
        script: String,
    },
    /// A provisioning script ended well.
    ProvisionDone {
        /// Its name.
        script: String,
    },
    /// A provisioning script did not.
    ProvisionFailed {
        /// Its name.
        script: String,
        /// Why, in one sentence.
        reason: String,
    },
    /// Its network listens for it, where nobody listened before.
    ForwardAdded {
        /// As `riad forward add` takes it.
        forward: String,
    },
    /// Its network does so no more.
    ForwardRemoved {
        /// As `riad forward add` takes it.
        forward: String,
    },
    /// Somebody came in by a forward, and nobody in the guest took the connection.
    ForwardFailed {
        /// The guest's port.
        port: u16,
        /// The forwards that lead there.
        forwards: Vec<String>,
    },
    /// Its guest asked its network for an address, and has it.
    Leased {
        /// The address.
        address: String,
        /// What the guest calls itself.
        called: Option<String>,
    },
    /// Its guest wanted to reach somebody, and was not let through.
    Refused {
        /// An address, and a port where there is one.
        to: String,
        /// `tcp`, `udp` or `icmp`.
        protocol: String,
        /// Why not.
        reason: String,
    },
    /// Its guest asked for a name that its network does not let it ask for.
    NameRefused {
        /// The name.
        name: String,
    },
    /// So many more were refused than are written down one by one.
    RefusedMore {
        /// How many.
        count: u64,
    },
    /// So many entries were left out: a guest caused more than are written down.
    LeftOut {
        /// How many.
        count: u64,
    },
}

/// What a guest can cause without end. Each kind is bounded for itself, so that none keeps the others
/// from being written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flood {
    /// It starts, again and again.
    Starts,
    /// Its network has something to tell of it.
    Network,
}

impl Flood {
    /// How many kinds there are.
    pub(super) const KINDS: usize = 2;

    /// How many there may be in a row: some ten starts; or what tells somebody what is wrong.
    pub(super) const fn burst(self) -> u32 {
        match self {
            Self::Starts => 100,
            Self::Network => 50,
        }
    }

    /// In this time there may be one more.
    pub(super) const fn refill(self) -> Duration {
        match self {
            Self::Starts => Duration::from_secs(3),
            Self::Network => Duration::from_secs(10),
        }
    }
}

impl Event {
    /// One sentence.
    fn message(&self) -> String {
        match self {
            Self::Created { image } => format!("made from image {image}"),
            Self::Cloned { from } => format!("made as a copy of {from}"),
            Self::Renamed { from } => format!("renamed; it was {from}"),
            Self::Deleted {} => "deleted".to_owned(),
            Self::Set { what, from, to, when } => match when.as_str() {
                "now" => format!("{what} set from {from} to {to}"),
                when => format!("{what} set from {from} to {to}, from the {when} on"),
            },
            Self::Attached { disk, read_only: false } => format!("disk {disk} attached"),
            Self::Attached { disk, read_only: true } => {
                format!("disk {disk} attached, to be read only")
            }
            Self::Detached { disk } => format!("disk {disk} detached"),
            Self::Joined { network, address } => {
                format!("attached to network {network}, as {address}")
            }
            Self::Left { network } => format!("detached from network {network}"),
            Self::Starting { pid, engine } => format!("starting: process {pid}, engine {engine}"),
            Self::Stage { stage } => format!("stage {stage}"),
            Self::AgentReady { ms } => {
                format!("commands can be run, after {:.1} s", *ms as f64 / 1e3)
            }
            Self::SystemReady { word } => match word.as_str() {
                "none" => "ready: the agent is all the init that it has".to_owned(),
                word => format!("its init system says: {word}"),
            },
            Self::Restarted { reboots } => format!("its guest restarts itself ({reboots})"),
            Self::Stopping { force: false } => "stopping in an orderly way".to_owned(),
            Self::Stopping { force: true } => "its plug is pulled".to_owned(),
            Self::Stopped { how } => match how.as_str() {
                "forced" => "off: it was stopped by force".to_owned(),
                _ => "off: its guest powered off".to_owned(),
            },
            Self::Failed { stage, reason } => format!("failed in stage {stage}: {reason}"),
            Self::Killed { stage } => format!(
                "its process had been killed in stage {stage}, or the computer lost power; that is \
                 noticed now"
            ),
            Self::SetUp {} => "user, keys, locale, time zone and name are set up".to_owned(),
            Self::SetUpFailed { reason } => format!("it could not be set up: {reason}"),
            Self::ProvisionStarted { script } => format!("provisioning with {script}"),
            Self::ProvisionDone { script } => format!("provisioned with {script}"),
            Self::ProvisionFailed { script: _, reason } => reason.clone(),
            Self::ForwardAdded { forward } => format!("forwards {forward}"),
            Self::ForwardRemoved { forward } => format!("forwards {forward} no more"),
            Self::ForwardFailed { port, forwards } => format!(
                "somebody came in by {}, and nothing in the guest takes connections at port {port}",
                if forwards.is_empty() { "a forward".to_owned() } else { forwards.join(", ") }
            ),
            Self::Leased { address, called: None } => format!("its guest was given {address}"),
            Self::Leased { address, called: Some(name) } => {
                format!("its guest, which calls itself {name}, was given {address}")
            }
            Self::Refused { to, protocol, reason } => {
                format!("its guest was not let through to {to} ({protocol}): {reason}")
            }
            Self::NameRefused { name } => {
                format!("its guest asked for the name {name}, and its rules say that it may not")
            }
            Self::RefusedMore { count } => {
                format!("its guest was not let through {count} times more")
            }
            Self::LeftOut { count } => {
                format!("{count} entries were left out: there were too many in a short time")
            }
        }
    }

    /// Whether the entry has to be on the disk before anything goes on: what a machine is, and how
    /// it ended. Stages would slow every start down.
    pub(super) fn lasts(&self) -> bool {
        !matches!(
            self,
            Self::Starting { .. }
                | Self::Stage { .. }
                | Self::AgentReady { .. }
                | Self::SystemReady { .. }
                | Self::Restarted { .. }
                | Self::LeftOut { .. }
        ) && !self.is_of_network()
    }

    /// Whether a guest can cause as many as it likes: of what kind they are then.
    pub(super) fn is_guests(&self) -> Option<Flood> {
        match self {
            Self::Stage { .. }
            | Self::AgentReady { .. }
            | Self::SystemReady { .. }
            | Self::Restarted { .. } => Some(Flood::Starts),
            _ => self.is_of_network().then_some(Flood::Network),
        }
    }

    /// Whether the guest's network tells it, of what the guest does there.
    fn is_of_network(&self) -> bool {
        matches!(
            self,
            Self::ForwardFailed { .. }
                | Self::Leased { .. }
                | Self::Refused { .. }
                | Self::NameRefused { .. }
                | Self::RefusedMore { .. }
        )
    }
}

impl Entry {
    /// The schema that is written.
    pub const SCHEMA: u32 = 1;

    /// An entry for now. What a guest may have had a part in is made safe to show.
    pub(crate) fn new(machine: &str, id: &str, by: Option<String>, event: &Event) -> Self {
        let at = now();
        let (event_name, details) = match serde_json::to_value(event) {
            Ok(Value::Object(one)) => one.into_iter().next().unwrap_or_default(),
            _ => Default::default(),
        };
        let text_of = |value: Value| match value {
            Value::String(text) => Value::String(printable(&text)),
            other => other,
        };
        let safe = |value: Value| match value {
            Value::Array(list) => list.into_iter().map(text_of).collect(),
            other => text_of(other),
        };
        let details = match details {
            Value::Object(fields) => fields.into_iter().map(|(k, v)| (k, safe(v))).collect(),
            _ => Map::new(),
        };
        Self {
            schema: Self::SCHEMA,
            at,
            time: text(at),
            machine: machine.to_owned(),
            id: id.to_owned(),
            event: event_name,
            message: printable(&event.message()),
            by: by.map(|by| printable(&by)),
            details,
        }
    }
}
