use super::*;

const MAC: Mac = [2, 0x72, 10, 77, 0, 2];
const OTHER: Mac = [2, 0x72, 10, 77, 0, 3];
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

fn frame(from: Mac, kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &from, &kind, payload].concat()
}

fn ipv4(from: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45; 20];
    packet[12..16].copy_from_slice(&from);
    packet
}

fn arp(mac: Mac, from: [u8; 4]) -> Vec<u8> {
    [&ARP_KIND[..], &[0, 1], &mac, &from, &[0; 6], &[10, 77, 0, 3]].concat()
}

#[test]
fn a_member_speaks_for_itself() {
    let own = ADDRESS.octets();
    assert!(admits(&frame(MAC, IPV4, &ipv4(own)), MAC, ADDRESS));
    assert!(admits(&frame(MAC, ARP, &arp(MAC, own)), MAC, ADDRESS));
    assert!(admits(&frame(MAC, ARP, &arp(MAC, [0; 4])), MAC, ADDRESS));
}

#[test]
fn a_member_that_speaks_for_another_is_refused() {
    let (own, other) = (ADDRESS.octets(), [10, 77, 0, 3]);
    for frame in [
        frame(OTHER, IPV4, &ipv4(own)),
        frame(MAC, IPV4, &ipv4(other)),
        frame(MAC, IPV4, &ipv4([0; 4])),
        frame(OTHER, ARP, &arp(MAC, own)),
        frame(MAC, ARP, &arp(OTHER, own)),
        frame(MAC, ARP, &arp(MAC, other)),
        // IPv6, a VLAN's tag, a switch's own protocols, LLDP.
        frame(MAC, [0x86, 0xdd], &[0x60; 40]),
        frame(MAC, [0x81, 0x00], &ipv4(own)),
        frame(MAC, [0x88, 0x08], &[0; 46]),
        frame(MAC, [0x88, 0xcc], &[0; 46]),
    ] {
        assert!(!admits(&frame, MAC, ADDRESS), "{frame:x?}");
    }
}

#[test]
fn what_is_cut_short_is_refused() {
    let own = ADDRESS.octets();
    for whole in [frame(MAC, IPV4, &ipv4(own)), frame(MAC, ARP, &arp(MAC, own))] {
        for len in 0..whole.len() {
            assert!(!admits(&whole[..len], MAC, ADDRESS), "{len}");
        }
    }
    let mut six = ipv4(own);
    six[0] = 0x60;
    assert!(!admits(&frame(MAC, IPV4, &six), MAC, ADDRESS));
}
