use super::*;

fn options() -> NetworkOptions {
    let mut options = NetworkOptions::default();
    options.read("riad.address", "10.0.0.2/24,fd00::2/64");
    options.read("riad.gateway", "10.0.0.1,fe80::1");
    options.read("riad.dns", "10.0.0.1");
    options.read("riad.search", "riad.internal,lab");
    options
}

#[test]
fn words_are_read() {
    let options = options();
    let addresses: [(IpAddr, u8); 2] =
        [("10.0.0.2".parse().unwrap(), 24), ("fd00::2".parse().unwrap(), 64)];
    assert_eq!(options.addresses, addresses);
    assert_eq!(options.gateways.len(), 2);
    assert_eq!(options.name_servers.len(), 1);
    assert_eq!(options.search, ["riad.internal", "lab"]);
}

#[test]
fn further_cards_are_known_by_their_hardware_address() {
    let mut options = NetworkOptions::default();
    options.read("riad.card", "02:72:0A:4D:00:02,10.77.0.2/24,nonsense");
    options.read("riad.card", "");
    options.read("riad.card", "02:72:0a:4e:00:03,10.78.0.3/16");
    let addresses = |text: &str, prefix| vec![(text.parse().unwrap(), prefix)];
    let card = |mac: &str, addresses| CardOptions { mac: mac.to_owned(), addresses };
    assert_eq!(
        options.cards,
        [
            card("02:72:0a:4d:00:02", addresses("10.77.0.2", 24)),
            card("02:72:0a:4e:00:03", addresses("10.78.0.3", 16)),
        ]
    );
    (0..100).for_each(|_| options.read("riad.card", "02:00:00:00:00:01"));
    assert_eq!(options.cards.len(), MOST_CARDS);
}

#[test]
fn nonsense_is_left_out() {
    let mut options = NetworkOptions::default();
    options.read("riad.address", "10.0.0.2,10.0.0.2/33,fd00::/129,x/8,,10.0.0.3/32");
    assert_eq!(options.addresses, [("10.0.0.3".parse().unwrap(), 32)]);
    options.read("riad.gateway", "nobody");
    options.read("riad.else", "10.0.0.1");
    assert!(options.gateways.is_empty());
}

#[test]
fn messages_have_the_kernels_layout() {
    let Message(bytes) = new_address(3, "10.0.0.2".parse().unwrap(), 24);
    assert_eq!(bytes[4..8], [20, 0, 5, 5]);
    assert_eq!(bytes[16..24], [2, 24, 0, 0, 3, 0, 0, 0]);
    assert_eq!(bytes[24..], [8, 0, 2, 0, 10, 0, 0, 2, 8, 0, 1, 0, 10, 0, 0, 2]);
    let Message(bytes) = default_route(3, "fe80::1".parse().unwrap());
    assert_eq!(bytes[16..28], [10, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]);
    assert_eq!(bytes[28..32], [20, 0, 5, 0]);
    assert_eq!(bytes[48..], [8, 0, 4, 0, 3, 0, 0, 0]);
    let Message(bytes) = link_up(3);
    assert_eq!(bytes[16..], [0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn somebody_elses_resolv_conf_is_left_alone() {
    for ours in ["", "\n", "# Written when a network is attached.\n", &resolv_conf(&options())] {
        assert!(is_ours(ours), "{ours}");
    }
    assert!(!is_ours("nameserver 192.0.2.1\n"));
    assert!(!is_ours("# Written when a network is attached.\nnameserver 192.0.2.1\n"));
}

#[test]
fn resolvers_are_told_in_their_own_words() {
    let options = options();
    let text = resolv_conf(&options);
    assert!(text.ends_with("\nnameserver 10.0.0.1\nsearch riad.internal lab\n"), "{text}");
    assert_eq!(resolved_conf(&options), "[Resolve]\nDNS=10.0.0.1\nDomains=riad.internal lab\n");
}
