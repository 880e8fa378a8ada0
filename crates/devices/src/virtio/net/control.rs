//! What the driver asks for on the control queue (virtio 1.3, section 5.1.6.5), and the filter that
//! it sets up there.

use riad_network::Mac;
use serde::{Deserialize, Serialize};

use super::{Driven, feature};

/// The most bytes of a command that are read: more than both tables of addresses can need.
pub const MOST_BYTES: usize = 2 + 2 * (4 + 6 * MOST_ADDRESSES);
/// Addresses in each of a filter's tables, if both are as long. Drivers that have more ask for all
/// frames.
pub const MOST_ADDRESSES: usize = 256;

/// Answers (section 5.1.6.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Ok = 0,
    /// Not done: unknown, not negotiated, or malformed.
    Error = 1,
}

/// Classes and their commands.
mod command {
    pub(super) const RX: u8 = 0;
    pub(super) const RX_PROMISC: u8 = 0;
    pub(super) const RX_ALLMULTI: u8 = 1;
    pub(super) const RX_ALLUNI: u8 = 2;
    pub(super) const RX_NOMULTI: u8 = 3;
    pub(super) const RX_NOUNI: u8 = 4;
    pub(super) const RX_NOBCAST: u8 = 5;
    pub(super) const MAC: u8 = 1;
    pub(super) const MAC_TABLE_SET: u8 = 0;
    pub(super) const MAC_ADDR_SET: u8 = 1;
    pub(super) const ANNOUNCE: u8 = 3;
    pub(super) const ANNOUNCE_ACK: u8 = 0;
    pub(super) const GUEST_OFFLOADS: u8 = 5;
    pub(super) const GUEST_OFFLOADS_SET: u8 = 0;
}

/// Which frames the driver wants (sections 5.1.6.5.1 and 5.1.6.5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// All of them.
    pub promiscuous: bool,
    /// All to groups.
    pub all_multicast: bool,
    /// All to one card, whichever.
    pub all_unicast: bool,
    /// None to groups.
    pub no_multicast: bool,
    /// None to one card.
    pub no_unicast: bool,
    /// None to everybody.
    pub no_broadcast: bool,
    /// Addresses of cards besides its own.
    pub unicast: Vec<Mac>,
    /// Addresses of groups.
    pub multicast: Vec<Mac>,
}

impl Default for Filter {
    /// A driver without a control queue cannot ask, so it gets everything.
    fn default() -> Self {
        Self {
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Vec::new(),
            multicast: Vec::new(),
        }
    }
}

impl Filter {
    /// Whether a frame to `to` is for the card `own`.
    #[must_use]
    pub fn wants(&self, own: Mac, to: Mac) -> bool {
        if self.promiscuous {
            return true;
        }
        if to == [0xff; 6] {
            return !self.no_broadcast;
        }
        // The first bit on the wire (IEEE 802, section 8.2).
        if to[0] & 1 != 0 {
            return !self.no_multicast && (self.all_multicast || self.multicast.contains(&to));
        }
        !self.no_unicast && (self.all_unicast || to == own || self.unicast.contains(&to))
    }
}

/// Does what `command` says, of a driver that accepted `features`.
pub(super) fn run(driven: &mut Driven, features: u64, command: &[u8]) -> Answer {
    let [class, command, data @ ..] = command else { return Answer::Error };
    let has = |feature: u64| features & feature != 0;
    let done = match (*class, *command) {
        (command::RX, command) if has(feature::CTRL_RX) => {
            let extra = has(feature::CTRL_RX_EXTRA);
            receive(&mut driven.filter, command, extra, data)
        }
        (command::MAC, command::MAC_TABLE_SET) if has(feature::CTRL_RX) => {
            tables(&mut driven.filter, data)
        }
        (command::MAC, command::MAC_ADDR_SET) if has(feature::CTRL_MAC_ADDR) => {
            Mac::try_from(data).ok().map(|mac| driven.mac = mac)
        }
        (command::ANNOUNCE, command::ANNOUNCE_ACK) if has(feature::GUEST_ANNOUNCE) => {
            driven.announce = false;
            Some(())
        }
        (command::GUEST_OFFLOADS, command::GUEST_OFFLOADS_SET)
            if has(feature::CTRL_GUEST_OFFLOADS) =>
        {
            offloads(driven, features, data)
        }
        _ => None,
    };
    if done.is_some() { Answer::Ok } else { Answer::Error }
}

fn receive(filter: &mut Filter, command: u8, extra: bool, data: &[u8]) -> Option<()> {
    let [on @ (0 | 1)] = data else { return None };
    let setting = match command {
        command::RX_PROMISC => &mut filter.promiscuous,
        command::RX_ALLMULTI => &mut filter.all_multicast,
        command::RX_ALLUNI if extra => &mut filter.all_unicast,
        command::RX_NOMULTI if extra => &mut filter.no_multicast,
        command::RX_NOUNI if extra => &mut filter.no_unicast,
        command::RX_NOBCAST if extra => &mut filter.no_broadcast,
        _ => return None,
    };
    *setting = *on == 1;
    Some(())
}

/// Two tables, each a count and as many addresses. Nothing changes unless both are whole.
fn tables(filter: &mut Filter, data: &[u8]) -> Option<()> {
    let (unicast, rest) = table(data)?;
    let (multicast, rest) = table(rest)?;
    if !rest.is_empty() {
        return None;
    }
    (filter.unicast, filter.multicast) = (unicast, multicast);
    Some(())
}

fn table(data: &[u8]) -> Option<(Vec<Mac>, &[u8])> {
    let (count, rest) = data.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (addresses, rest) = rest.split_at_checked(count.checked_mul(6)?)?;
    Some((addresses.as_chunks().0.to_vec(), rest))
}

fn offloads(driven: &mut Driven, features: u64, data: &[u8]) -> Option<()> {
    let wanted = u64::from_le_bytes(data.try_into().ok()?);
    if wanted & !(features & feature::GUEST_OFFLOADS) != 0 {
        return None;
    }
    driven.offloads = Some(wanted);
    Some(())
}
