use proptest::prelude::*;

use super::*;

fn policy(default: Verdict, rules: &[&str]) -> Policy {
    let rules = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    Policy { default, rules, host: HostAccess::Refused }
}

fn to(address: &str, port: u16) -> Destination {
    Destination { address: address.parse().unwrap(), protocol: Protocol::Tcp, port }
}

/// The verdict, with the host at 192.0.2.7 and no names.
fn judge(policy: &Policy, to: &Destination) -> Result<(), Refusal> {
    let own: IpAddr = "192.0.2.7".parse().unwrap();
    policy.judge(to, |address| address == own, |_| false)
}

#[test]
fn the_host_and_what_is_guarded_are_refused_unless_named() {
    let open = policy(Verdict::Allow, &["allow 0.0.0.0/0", "allow ::/0", "allow any"]);
    assert_eq!(judge(&open, &to("192.0.2.1", 80)), Ok(()));
    for closed in [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "2002:7f00:1::",
    ] {
        assert_eq!(judge(&open, &to(closed, 80)), Err(Refusal::Closed), "{closed}");
        let named = policy(Verdict::Allow, &[&format!("allow {closed}")]);
        assert_eq!(judge(&named, &to(closed, 80)), Err(Refusal::Closed), "{closed}, named");
    }
    for guarded in [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "fe80::1",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::",
    ] {
        assert_eq!(judge(&open, &to(guarded, 80)), Err(Refusal::Guarded), "{guarded}");
    }
    for own in ["192.0.2.7", "::ffff:192.0.2.7"] {
        assert_eq!(judge(&open, &to(own, 80)), Err(Refusal::Own));
        let named = policy(Verdict::Allow, &[&format!("allow {own}")]);
        assert_eq!(judge(&named, &to(own, 80)), Ok(()));
    }
    let named = policy(Verdict::Allow, &["allow tcp 169.254.169.254:80"]);
    assert_eq!(judge(&named, &to("169.254.169.254", 80)), Ok(()));
    assert_eq!(judge(&named, &to("169.254.169.254", 81)), Err(Refusal::Guarded));
    // A prefix that is not all guarded does not name them.
    let wide = policy(Verdict::Allow, &["allow 169.0.0.0/8", "allow 192.0.2.0/24"]);
    assert_eq!(judge(&wide, &to("169.254.169.254", 80)), Err(Refusal::Guarded));
    assert_eq!(judge(&wide, &to("192.0.2.7", 80)), Err(Refusal::Own));
}

#[test]
fn the_first_rule_that_speaks_of_it_decides() {
    let rules = ["deny tcp 10.0.0.0/8:22", "allow 10.1.0.0/16", "deny 10.0.0.0/8"];
    let policy = policy(Verdict::Allow, &rules);
    assert_eq!(judge(&policy, &to("10.1.2.3", 80)), Ok(()));
    assert_eq!(judge(&policy, &to("10.1.2.3", 22)), Err(Refusal::Rule));
    assert_eq!(judge(&policy, &to("10.2.2.3", 80)), Err(Refusal::Rule));
    assert_eq!(judge(&policy, &to("11.2.2.3", 22)), Ok(()));
    let udp = Destination { protocol: Protocol::Udp, ..to("10.1.2.3", 22) };
    assert_eq!(judge(&policy, &udp), Ok(()));
}

#[test]
fn names_open_the_addresses_that_were_given_for_them() {
    let policy = policy(Verdict::Deny, &["allow *.example.com:443", "allow example.org"]);
    let judge = |to: &Destination, given: usize| policy.judge(to, |_| false, |rule| rule == given);
    assert_eq!(judge(&to("192.0.2.1", 443), 0), Ok(()));
    assert_eq!(judge(&to("192.0.2.1", 80), 0), Err(Refusal::Rule));
    assert_eq!(judge(&to("192.0.2.1", 80), 1), Ok(()));
    assert_eq!(judge(&to("192.0.2.1", 443), 7), Err(Refusal::Rule));
    // A name server that answers with a guarded address opens nothing.
    assert_eq!(judge(&to("169.254.169.254", 443), 0), Err(Refusal::Guarded));
    assert!(policy.may_ask("a.b.example.com") && policy.may_ask("example.org"));
    for other in ["example.com", "a.example.org", "badexample.com", ".example.com", "test", ""] {
        assert!(!policy.may_ask(other), "{other}");
    }
}

#[test]
fn rules_that_make_no_sense_are_refused_with_a_reason() {
    for bad in [
        "",
        "allow",
        "permit any",
        "allow tcp any any",
        "allow icmp any:3",
        "allow any:9-3",
        "allow any:65536",
        "allow 10.0.0.0/33",
        "allow 10.0.0/8",
        "allow 10.0.0.300",
        "deny a..b",
        "deny [::1",
        "deny [::1]x",
        "deny -/",
        "deny caf\u{e9}.example",
    ] {
        let error = bad.parse::<Rule>().unwrap_err().to_string();
        assert!(error.contains(&format!("{bad:?}")), "{error}");
    }
}

proptest! {
    /// What is written can be read, and means the same.
    #[test]
    fn rules_are_read_as_they_are_written(
        allow: bool,
        protocol in prop::sample::select(vec!["", "tcp ", "udp "]),
        who in prop::sample::select(vec!["any", "10.0.0.0/8", "::/0", "*.example.com", "192.0.2.1"]),
        first: u16,
        more in 0u16..100,
        ports: bool,
    ) {
        let verdict = if allow { "allow" } else { "deny" };
        let who = if who.contains("::") { format!("[{who}]") } else { who.to_owned() };
        let last = first.saturating_add(more);
        let ports = if ports { format!(":{first}-{last}") } else { String::new() };
        let rule: Rule = format!("{verdict} {protocol}{who}{ports}").parse().unwrap();
        prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
    }

    /// A prefix contains an address exactly if their first bits are the same.
    #[test]
    fn prefixes_compare_bits(address: u32, other: u32, prefix in 0u8..=32) {
        let cidr = Cidr::new(Ipv4Addr::from(address).into(), prefix).unwrap();
        let bits = |number: u32| format!("{number:032b}")[..usize::from(prefix)].to_owned();
        let expected = bits(address) == bits(other);
        prop_assert_eq!(cidr.contains(Ipv4Addr::from(other).into()), expected);
    }
}
