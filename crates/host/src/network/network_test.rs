use super::*;

#[test]
fn networks_are_read_as_they_are_written() {
    for text in [
        "user",
        "user,host=8080,host=9000,deny=10.0.0.0/8,allow=tcp example.com:443",
        "user,host=all",
        "none",
        "tap=tap0",
        "bridge=br0,ip=192.0.2.5/24,ip=2001:db8::5/64,gateway=192.0.2.1,dns=192.0.2.1,dns=192.0.2.2",
    ] {
        let network: Network = text.parse().unwrap();
        assert_eq!(network.to_string(), text);
        let json = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
    }
}

#[test]
fn what_is_no_network_is_told_why() {
    for (text, words) in [
        ("", "expected user, none"),
        ("usr", "'usr' is no network"),
        ("tap", "expected user, none"),
        ("tap=", "expected user, none"),
        ("none,ip=192.0.2.5/24", "no addresses"),
        ("user,ip=192.0.2.5/24", "none of host="),
        ("user,host=x", "host=8080"),
        ("user,allow=no body", "is no rule"),
        ("tap=t,ip=192.0.2.5", "prefix length"),
        ("tap=t,ip=192.0.2.5/33", "prefix length"),
        ("tap=t,gateway=x", "no address"),
        ("tap=t,mtu=9000", "none of ip="),
    ] {
        let error = text.parse::<Network>().unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_card_address_is_local_and_one_machines() {
    let one = mac("ff3456789abcdef0123456789abcdef0");
    assert_eq!(one, [0xfe, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
    let other = mac("013456789abcdef0123456789abcdef0");
    assert_eq!(other[0], 0x02);
    assert_ne!(one, other);
    // An identity that somebody has edited gives an address all the same.
    assert_eq!(mac("")[0] & 3, 2);
    assert_eq!(mac("ééé")[0] & 3, 2);
}

#[test]
fn the_guest_is_told_what_its_card_is_set_to() {
    let plug = Network::default().plug("00", Some("box"), &[], NetMode::Nat).unwrap();
    let words = plug.words();
    assert!(words.starts_with("net.ifnames=0 riad.address="), "{words}");
    for name in ["riad.gateway=", "riad.dns=", "riad.search="] {
        assert!(words.contains(name), "{words}");
    }
    let own: Network = "tap=t,ip=192.0.2.5/24,gateway=192.0.2.1".parse().unwrap();
    let Network::Tap { own, .. } = own else { panic!("another network") };
    assert_eq!(own.words(), " riad.address=192.0.2.5/24 riad.gateway=192.0.2.1");
    let none = Network::None.plug("00", None, &[], NetMode::Nat).unwrap();
    assert_eq!((none.words().as_str(), none.cable.is_none()), ("", true));
}

#[test]
fn without_a_network_nothing_is_published() {
    let publish = ["tcp:0:80".parse().unwrap()];
    let error = Network::None.plug("00", None, &publish, NetMode::Nat).unwrap_err();
    assert!(error.to_string().contains("'none'"), "{error}");
    let plug = Network::default().plug("00", None, &publish, NetMode::Nat).unwrap();
    let listening = plug.control().unwrap().forwards();
    let at = Publish::from(listening[0].forward.clone()).to_string();
    assert!(at.starts_with("tcp:127.0.0.1:") && at.ends_with(":80"), "{at}");
    assert!(!at.contains(":0:"), "a port was picked: {at}");
}

#[test]
fn a_shut_off_machine_reaches_less_than_its_rules_say() {
    let Network::User(rules) = "user,host=8080,allow=example.com".parse().unwrap() else {
        panic!()
    };
    let nat = rules.policy(NetMode::Nat);
    assert_eq!((nat.default, nat.rules.len()), (Verdict::Allow, 1));
    let host_only = rules.policy(NetMode::HostOnly);
    assert!(host_only.host_allows(8080) && !host_only.host_allows(8081));
    let isolated = rules.policy(NetMode::Isolated);
    assert!(!isolated.host_allows(8080));
    for policy in [host_only, isolated] {
        assert!(policy.rules.is_empty() && !policy.may_ask("example.com"));
    }
}

#[test]
fn members_are_called_by_their_names_and_by_the_networks() {
    let [one, two] = [2, 3].map(|last| Ipv4Addr::new(10, 77, 0, last));
    let roster = [("web", one), ("host", two), ("db", two)].map(|(name, a)| (name.to_owned(), a));
    let rosters = BTreeMap::from([("lab".to_owned(), roster.to_vec())]);
    let names = names("web", &rosters);
    let names: Vec<_> = names.iter().map(|(name, _)| name.as_str()).collect();
    // Its own name is its own network's; `host` is this computer.
    assert_eq!(names, ["web.lab", "host.lab", "db.lab", "db"]);
}

#[test]
fn a_machine_on_a_named_network_is_told_its_card_and_hears_of_others() {
    use riad_network::switch::{Client, Switch, listen};
    let directory = tempfile::tempdir().unwrap();
    let mut switch = Switch::new(listen(directory.path()).unwrap()).unwrap();
    let holder = Client::connect(directory.path()).unwrap();
    let thread = std::thread::spawn(move || switch.serve().unwrap());
    let membership = |mode, last| Membership {
        name: "lab".parse().unwrap(),
        subnet: "10.77.0.0/24".parse().unwrap(),
        mode,
        address: Ipv4Addr::new(10, 77, 0, last),
        directory: directory.path().to_owned(),
    };
    let machine = |name: &str| name.parse::<Name>().unwrap();
    let mut plug = Network::None.plug("00", Some("web"), &[], NetMode::Isolated).unwrap();
    plug.join(&membership(NetMode::Isolated, 2), &machine("web")).unwrap();
    assert_eq!(plug.words(), "net.ifnames=0 riad.card=02:72:0a:4d:00:02,10.77.0.2/24");
    assert_eq!(plug.cables().len(), 1);
    let own = riad_network::switch::mac_of(Ipv4Addr::new(10, 77, 0, 2));
    assert_eq!(plug.cables()[0].mac(), own);
    // Not beside a card that leads out all the same.
    plug.network = "bridge=br0".parse().unwrap();
    let error = plug.join(&membership(NetMode::Isolated, 3), &machine("db")).unwrap_err();
    assert!(error.to_string().contains("is isolated"), "{error}");
    drop((plug, holder));
    thread.join().unwrap();
    let mut plug = Network::default().plug("00", Some("web"), &[], NetMode::Nat).unwrap();
    let error = plug.join(&membership(NetMode::Nat, 2), &machine("web")).unwrap_err();
    assert!(error.to_string().contains("does not run"), "{error}");
}
