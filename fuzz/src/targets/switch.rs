//! The switch of a named network: messages of a machine's process that its guest has taken over.

use std::net::Ipv4Addr;

use riad_network::switch::{allows, mac_of};

use super::Target;

/// The member that sends.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Bytes before a frame: what the message is, and what is to be done to the frame.
const HEAD: usize = 13;

/// Messages from a member.
pub(super) const SWITCH: Target = Target {
    name: "switch",
    what: "messages of a machine on a named network, to its switch",
    unit: "messages passed on",
    run,
    seeds,
    generate: None,
    words: &[
        &[2, 0x72, 10, 77, 0, 2],
        &[10, 77, 0, 2],
        &[0x08, 0, 0x45],
        &[0x08, 6, 0, 1, 8, 0, 6, 4],
        &[0x86, 0xdd],
    ],
};

/// What is passed on says truly whom it is from.
fn run(case: &[u8]) -> u64 {
    if !allows(case, ADDRESS) {
        return 0;
    }
    let frame = &case[HEAD..];
    assert_eq!(frame[6..12], mac_of(ADDRESS), "another's card");
    let from = match frame[12..14] {
        [0x08, 0] => &frame[26..30],
        [0x08, 6] => &frame[28..32],
        _ => panic!("a protocol that is not looked into: {:x?}", &frame[12..14]),
    };
    assert!(from == ADDRESS.octets() || from == [0; 4], "another's address: {from:?}");
    1
}

fn seeds() -> Vec<Vec<u8>> {
    let (mac, address) = (mac_of(ADDRESS), ADDRESS.octets());
    let ethernet = |kind: [u8; 2]| [&[0; HEAD][..], &[0xff; 6], &mac, &kind].concat();
    let mut ip = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0, 10, 77, 0, 3];
    ip[12..16].copy_from_slice(&address);
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac, &address, &[0; 6], &[10, 77, 0, 3]].concat();
    vec![[ethernet([8, 0]), ip.to_vec()].concat(), [ethernet([8, 6]), arp].concat()]
}
