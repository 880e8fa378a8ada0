//! What is said on a machine's control socket: one line of JSON from whoever connects, one line of
//! JSON back, and then what was asked for. `docs/control-protocol.md` is the reference.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::machines::NetMode;
use crate::network::{CableFaults, Publish};

/// The version of the protocol that this build speaks. A request says the version that brought it
/// ([`Order::since`]), so that a process of an older Riad obeys what it knows.
pub const VERSION: u32 = 4;

/// The longest request, in bytes, with the newline.
pub const MOST_REQUEST: usize = 4096;

/// What is asked of a machine's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
pub enum Order {
    /// Says what is true of the machine: a [`RunState`](crate::machines::RunState) comes back.
    Status,
    /// Connects to the agent: the reply comes with a descriptor, on which a session of the agent's
    /// protocol is to be begun.
    Session,
    /// Stops the machine; the connection is closed when it is off.
    Stop {
        /// Pulls the plug, instead of having the guest shut down.
        #[serde(default)]
        force: bool,
        /// Who wants it, for the record.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The console: after the reply, what the guest writes comes out of the connection, and what is
    /// sent is typed.
    Console,
    /// What is true of the network: a [`NetworkStatus`](crate::NetworkStatus) comes back. Since
    /// version 3.
    Network,
    /// Forwards to the guest. The first reply asks for the socket that listens: it is sent with a line
    /// of its own, whatever that says, and the second reply is a
    /// [`ForwardStatus`](crate::network::ForwardStatus). Since version 3.
    Forward {
        /// What the socket does, as `riad forward add` takes it, with no port 0.
        forward: Publish,
    },
    /// Ends a forward: a [`ForwardStatus`](crate::network::ForwardStatus) tells which it was. Since
    /// version 3.
    Unforward {
        /// Its number.
        id: u32,
    },
    /// Puts the machine on a named network while it runs. The first reply asks for the connection to the
    /// network's switch: it is sent with a line of its own, whatever that says, and the second reply comes
    /// when the guest has the card, and its address. Since version 4.
    Join {
        /// What it is told of the network.
        #[serde(flatten)]
        joining: Joining,
    },
    /// Takes the machine off a named network while it runs, once its guest has let the card go. Since
    /// version 4.
    Leave {
        /// The network's name.
        network: String,
        /// What it reaches from then on besides its neighbours.
        reach: NetMode,
    },
    /// Plugs a disk in while the machine runs. The first reply asks for the disk's file, which is open and
    /// locked: it is sent with a line of its own, whatever that says, and the second reply comes when the
    /// guest has the disk. Since version 4.
    Attach {
        /// The disk's name.
        disk: String,
        /// Whether the machine only reads it.
        #[serde(default)]
        read_only: bool,
    },
    /// Unplugs a disk while the machine runs, unless its guest has it in use; once the guest has let it
    /// go, and what is on it is written. Since version 4.
    Detach {
        /// The disk's name.
        disk: String,
    },
    /// Has the rules hold that the folder has for the network `user`. Since version 3.
    Policy,
    /// Captures what goes over the cable: after the reply, a pcapng file comes out of the connection,
    /// until whoever asked ends their side of it. Since version 3.
    Capture,
    /// What the cable does to frames: a [`CableFaults`] comes back. Since version 3.
    Fault {
        /// What it is to do from now on; nothing is changed without.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        set: Option<CableFaults>,
    },
    /// News: after the reply, a line with the machine's state whenever it changes.
    Events,
    /// Says what the machine uses: [`Vitals`](super::Vitals) come back. Since version 2.
    Stats,
    /// Runs provisioning scripts, which are in the folder already. Since version 2.
    Provision {
        /// Their names there.
        scripts: Vec<String>,
    },
    /// Makes the root disk larger, and the file system on it. Since version 2.
    Grow {
        /// Its new size in bytes.
        size: u64,
    },
    /// Makes a disk that is attached larger; what is on it is the guest's. Since version 3.
    #[serde(rename = "grow-disk")]
    GrowDisk {
        /// The disk's name.
        disk: String,
        /// Its new size in bytes.
        size: u64,
    },
}

/// A named network that a machine comes to while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// The network's name.
    pub network: String,
    /// The machine's address there.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// What the machine reaches from then on besides its neighbours.
    pub reach: NetMode,
}

#[derive(Serialize, Deserialize)]
struct Request {
    riad: u32,
    #[serde(flatten)]
    order: Order,
}

#[derive(Deserialize)]
struct VersionOnly {
    riad: u64,
}

impl Order {
    /// The version of the protocol that brought the order.
    #[must_use]
    pub const fn since(&self) -> u32 {
        match self {
            Self::Status | Self::Session | Self::Stop { .. } | Self::Console | Self::Events => 1,
            Self::Stats | Self::Provision { .. } | Self::Grow { .. } => 2,
            Self::GrowDisk { .. }
            | Self::Network
            | Self::Forward { .. }
            | Self::Unforward { .. }
            | Self::Policy
            | Self::Capture
            | Self::Fault { .. } => 3,
            Self::Join { .. } | Self::Leave { .. } | Self::Attach { .. } | Self::Detach { .. } => 4,
        }
    }

    /// The order as a line.
    #[must_use]
    pub fn to_line(&self) -> String {
        let request = Request { riad: self.since(), order: self.clone() };
        // Nothing in it can fail to be written.
        serde_json::to_string(&request).unwrap_or_default() + "\n"
    }

    /// Reads a line, with or without its newline.
    ///
    /// # Errors
    /// A sentence for whoever asked.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        if line.len() > MOST_REQUEST {
            return Err(format!("a request has at most {MOST_REQUEST} bytes"));
        }
        let not_understood = |error: serde_json::Error| {
            format!("the machine's process does not understand the request: {error}")
        };
        let VersionOnly { riad } = serde_json::from_slice(line).map_err(not_understood)?;
        if riad > u64::from(VERSION) {
            return Err(format!(
                "the machine's process is an older Riad's (protocol {VERSION}, not {riad}): stop and \
                 start the machine, and it is this one's"
            ));
        }
        let request: Request = serde_json::from_slice(line).map_err(not_understood)?;
        Ok(request.order)
    }
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// As asked.
    Ok(serde_json::Value),
    /// Not so: a sentence for people.
    Error(String),
}

impl Reply {
    /// The reply as a line.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads a line.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
