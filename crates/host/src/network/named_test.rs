use super::*;

#[test]
fn a_shut_off_machine_reaches_less_than_its_rules_say() {
    let Network::User(rules) = "user,host=8080,allow=example.com".parse().unwrap() else {
        panic!()
    };
    let nat = rules.policy(NetMode::Nat);
    assert_eq!((nat.default, nat.rules.len()), (Verdict::Allow, 1));
    let careful = Rules { default: Verdict::Deny, ..rules.clone() };
    assert_eq!(careful.policy(NetMode::Nat).default, Verdict::Deny);
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
    use riad_network::switch::{Client, Switch, listen, mac_of};
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
    let own = mac_of(Ipv4Addr::new(10, 77, 0, 2));
    assert_eq!(plug.cables()[0].mac(), own);
    // Not beside a card that leads out all the same.
    plug.network = std::sync::Mutex::new("bridge=br0".parse().unwrap());
    let error = plug.join(&membership(NetMode::Isolated, 3), &machine("db")).unwrap_err();
    assert!(error.to_string().contains("is isolated"), "{error}");
    // It leaves, and comes again by a connection that somebody brings.
    plug.network = std::sync::Mutex::new(Network::None);
    plug.leave("lab", NetMode::Nat);
    assert_eq!((plug.cables().len(), plug.mac_on("lab"), plug.reach()), (0, None, NetMode::Nat));
    let address = Ipv4Addr::new(10, 77, 0, 2);
    let socket = Client::connect(directory.path()).unwrap().join("web", address).unwrap();
    let joining =
        Joining { network: "lab".to_owned(), address, prefix: 24, reach: NetMode::Isolated };
    let cable = plug.join_with(&joining, &machine("web"), socket).unwrap();
    assert_eq!((cable.mac(), plug.mac_on("lab")), (own, Some(own)));
    assert_eq!(plug.words(), "net.ifnames=0 riad.card=02:72:0a:4d:00:02,10.77.0.2/24");
    assert_eq!(plug.reach(), NetMode::Isolated);
    drop((plug, cable, holder));
    thread.join().unwrap();
    let plug = Network::default().plug("00", Some("web"), &[], NetMode::Nat).unwrap();
    let error = plug.join(&membership(NetMode::Nat, 2), &machine("web")).unwrap_err();
    assert!(error.to_string().contains("does not run"), "{error}");
}
