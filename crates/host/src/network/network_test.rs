use super::*;

#[test]
fn networks_are_read_as_they_are_written() {
    for text in [
        "user",
        "user,host=8080,host=9000,deny=10.0.0.0/8,allow=tcp example.com:443",
        "user,host=all",
        "user,default=deny,allow=tcp [2001:db8::/32]:80-90,allow=*.example.com",
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
        ("user,default=maybe", "neither allow nor deny"),
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
fn rules_are_changed_while_a_network_is_plugged_in() {
    let plug = Network::default().plug("00", None, &[], NetMode::Nat).unwrap();
    let Network::User(rules) = "user,default=deny,allow=any:53".parse().unwrap() else {
        panic!("another network")
    };
    plug.rule(&rules).unwrap();
    assert_eq!(plug.network().to_string(), "user,default=deny,allow=any:53");
    let none = Network::None.plug("00", None, &[], NetMode::Nat).unwrap();
    let error = none.rule(&rules).unwrap_err().to_string();
    assert!(error.contains("'none'"), "{error}");
}

#[test]
fn there_are_so_many_rules_and_no_more() {
    let text = format!("user{}", ",deny=any:25".repeat(MOST_RULES));
    assert!(text.parse::<Network>().is_ok());
    let error = (text + ",deny=any").parse::<Network>().unwrap_err();
    assert!(error.contains("1024"), "{error}");
}
