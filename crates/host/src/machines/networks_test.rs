use super::*;
use crate::machines::tests;
use crate::network::Network;

/// A directory with machines.
fn machines(names: &[&str]) -> (tempfile::TempDir, Machines) {
    let (directory, machines) = tests::machines();
    names.iter().for_each(|name| drop(tests::make(&machines, name)));
    (directory, machines)
}

fn name<T: FromStr<Err = MachineError>>(text: &str) -> T {
    text.parse().unwrap()
}

#[test]
fn networks_get_addresses_that_no_other_has() {
    let (_directory, machines) = machines(&[]);
    assert!(machines.networks().unwrap().is_empty());
    let lab = machines.create_network(&name("lab"), None, NetMode::Nat).unwrap();
    assert_eq!(lab.subnet.to_string(), "10.77.0.0/24");
    let more = machines.create_network(&name("more"), None, NetMode::Isolated).unwrap();
    assert_eq!((more.subnet.to_string().as_str(), more.mode), ("10.77.1.0/24", NetMode::Isolated));
    for (taken, whose) in [
        ("10.77.0.128/25", "network lab"),
        ("10.0.0.0/8", "every machine's own network"),
        ("10.213.47.0/24", "every machine's own network"),
    ] {
        let wanted = Some(taken.parse().unwrap());
        let error = machines.create_network(&name("x"), wanted, NetMode::Nat).unwrap_err();
        assert!(error.to_string().contains(whose), "{error}");
    }
    let own = machines.create_network(
        &name("own"),
        Some("192.168.9.0/29".parse().unwrap()),
        NetMode::HostOnly,
    );
    assert_eq!(own.unwrap().subnet.to_string(), "192.168.9.0/29");
    let error = machines.create_network(&name("lab"), None, NetMode::Nat).unwrap_err();
    assert!(matches!(error, MachineError::NetworkExists(_)), "{error}");
    let names: Vec<_> =
        machines.networks().unwrap().into_iter().map(|(n, _)| n.to_string()).collect();
    assert_eq!(names, ["lab", "more", "own"]);
    for bad in ["10.77.0.1/24", "10.77.0.0", "10.77.0.0/30", "127.0.0.0/8", "lab/24", "::/64"] {
        let error = bad.parse::<Subnet>().unwrap_err();
        assert!(error.contains(bad), "{error}");
    }
}

#[test]
fn a_machine_keeps_its_address_until_it_leaves() {
    let (_directory, machines) = machines(&["web", "db", "third"]);
    let lab: NetName = name("lab");
    machines.create_network(&lab, None, NetMode::Nat).unwrap();
    let attach = |machine: &str, ip: Option<&str>| {
        let ip = ip.map(|ip| ip.parse().unwrap());
        machines.attach_network(&lab, &name(machine), ip).map(|(_, address)| address.to_string())
    };
    assert_eq!(attach("web", None).unwrap(), "10.77.0.2");
    assert_eq!(attach("db", Some("10.77.0.1")).unwrap(), "10.77.0.1");
    for (ip, why) in [
        ("10.77.0.2", "machine web's"),
        ("10.77.1.2", "10.77.0.1 to 10.77.0.254"),
        ("10.77.0.0", "10.77.0.1 to"),
        ("10.77.0.255", "10.77.0.1 to"),
    ] {
        let error = attach("third", Some(ip)).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    let error = attach("web", None).unwrap_err();
    assert!(matches!(error, MachineError::OnNetwork { .. }), "{error}");
    let error = machines.remove_network(&lab).unwrap_err();
    assert!(error.to_string().contains("db, web"), "{error}");
    // The machine takes its address along when it is renamed; a copy has none.
    machines.rename(&name("web"), &name("www")).unwrap();
    let members = machines.network(&lab).unwrap().members;
    assert_eq!(members[1], (name("www"), "10.77.0.2".parse().unwrap()));
    machines.detach_network(&lab, &name("www")).unwrap();
    let error = machines.detach_network(&lab, &name("www")).unwrap_err();
    assert!(matches!(error, MachineError::NotOnNetwork { .. }), "{error}");
    assert_eq!(attach("third", None).unwrap(), "10.77.0.2");
    for machine in ["db", "third"] {
        machines.detach_network(&lab, &name(machine)).unwrap();
    }
    machines.remove_network(&lab).unwrap();
    assert!(matches!(machines.network(&lab), Err(MachineError::NoSuchNetwork(_))));
}

#[test]
fn networks_and_machines_have_bounds() {
    let (_directory, machines) = machines(&["web"]);
    for number in 0..Machines::MOST_NETWORKS {
        let network = name(&format!("n{number}"));
        machines.create_network(&network, None, NetMode::Nat).unwrap();
        machines.attach_network(&network, &name("web"), None).unwrap();
    }
    let five: NetName = name("five");
    machines.create_network(&five, Some("10.78.0.0/29".parse().unwrap()), NetMode::Nat).unwrap();
    let error = machines.attach_network(&five, &name("web"), None).unwrap_err();
    assert!(matches!(error, MachineError::TooManyNetworks(_)), "{error}");
    for machine in ["a", "b", "c", "d", "e", "f"] {
        tests::make(&machines, machine);
    }
    for machine in ["a", "b", "c", "d", "e"] {
        machines.attach_network(&five, &name(machine), None).unwrap();
    }
    let error = machines.attach_network(&five, &name("f"), None).unwrap_err();
    assert!(matches!(error, MachineError::NetworkFull(_)), "{error}");
}

#[test]
fn what_a_network_cannot_do_without_a_machine_says_so() {
    let (_directory, machines) = machines(&["web", "db"]);
    let lab: NetName = name("lab");
    let network = machines.create_network(&lab, None, NetMode::Nat).unwrap();
    assert_eq!(network.running().unwrap(), None);
    let error = network.heal().unwrap_err();
    assert!(error.to_string().contains("while a machine on the network runs"), "{error}");
    let error = network.partition(&[name("web"), name("db")]).unwrap_err();
    assert!(matches!(error, MachineError::NotOnNetwork { .. }), "{error}");
}

#[test]
fn a_machine_whose_network_is_gone_is_told_how_to_start() {
    let (_directory, machines) = machines(&["web"]);
    let lab: NetName = name("lab");
    machines.create_network(&lab, None, NetMode::Nat).unwrap();
    let (folder, _) = machines.attach_network(&lab, &name("web"), None).unwrap();
    assert_eq!(folder.config().unwrap().network, Network::default());
    fs::remove_dir_all(machines.network_directory(&lab)).unwrap();
    let error = Machines::networks_of(&folder, &folder.config().unwrap()).unwrap_err();
    assert!(error.to_string().contains("riad net detach lab web"), "{error}");
    machines.detach_network(&lab, &name("web")).unwrap();
    assert!(Machines::networks_of(&folder, &folder.config().unwrap()).unwrap().is_empty());
}

#[test]
fn an_address_is_not_given_away_while_a_machine_that_left_runs_with_it() {
    use riad_network::switch::{Member, Switch, listen};
    let (_directory, machines) = machines(&["web", "db"]);
    let lab: NetName = name("lab");
    machines.create_network(&lab, None, NetMode::Nat).unwrap();
    let (_, address) = machines.attach_network(&lab, &name("web"), None).unwrap();
    let place = machines.network_directory(&lab);
    let mut switch = Switch::new(listen(&place).unwrap()).unwrap();
    let holder = Client::connect(&place).unwrap();
    holder.hold().unwrap();
    let thread = std::thread::spawn(move || switch.serve().unwrap());
    let web = Member::join(&place, "web", address, Box::new(|_| {})).unwrap();
    machines.detach_network(&lab, &name("web")).unwrap();
    let error = machines.attach_network(&lab, &name("db"), Some(address)).unwrap_err();
    assert!(error.to_string().contains("machine web's"), "{error}");
    let error = machines.remove_network(&lab).unwrap_err();
    assert!(matches!(error, MachineError::NetworkInUse(_)), "{error}");
    let (_, other) = machines.attach_network(&lab, &name("db"), None).unwrap();
    assert_ne!(other, address);
    let running = machines.network(&lab).unwrap().running().unwrap().unwrap();
    assert_eq!(running.members[0].name, "web");
    drop((web, holder));
    thread.join().unwrap();
}
