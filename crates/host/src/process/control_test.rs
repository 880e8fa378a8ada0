use super::*;

fn joining() -> Joining {
    let address = Ipv4Addr::new(10, 77, 0, 2);
    Joining { network: "lab".to_owned(), address, prefix: 24, reach: NetMode::Nat }
}

#[test]
fn orders_are_what_they_were() {
    for order in [
        Order::Status,
        Order::Session,
        Order::Stop { force: true, by: None },
        Order::Stop { force: false, by: None },
        Order::Console,
        Order::Events,
        Order::Stats,
        Order::Policy,
        Order::Join { joining: joining() },
        Order::Attach { disk: "data".to_owned(), read_only: true },
        Order::Detach { disk: "data".to_owned() },
        Order::Leave { network: "lab".to_owned(), reach: NetMode::HostOnly },
        Order::Capture,
        Order::Fault { set: None },
        Order::Fault { set: Some(CableFaults { cut: true, ..CableFaults::default() }) },
        Order::Grow { size: u64::MAX },
        Order::Provision { scripts: vec!["a.sh".to_owned()] },
    ] {
        assert_eq!(Order::parse(order.to_line().as_bytes()), Ok(order));
    }
    assert_eq!(
        Order::Stop { force: true, by: None }.to_line(),
        "{\"riad\":1,\"do\":\"stop\",\"force\":true}\n"
    );
    let by = Order::Stop { force: false, by: Some("riad stop".to_owned()) };
    assert_eq!(Order::parse(by.to_line().as_bytes()), Ok(by));
    // What came later says so; a process that is older says that it is.
    assert_eq!(Order::Stats.to_line(), "{\"riad\":2,\"do\":\"stats\"}\n");
    assert_eq!(
        Order::Join { joining: joining() }.to_line(),
        "{\"riad\":4,\"do\":\"join\",\"network\":\"lab\",\"address\":\"10.77.0.2\",\"prefix\":24,\
         \"reach\":\"nat\"}\n"
    );
    // What a later version may leave out or add.
    assert_eq!(
        Order::parse(b"{\"riad\":1,\"do\":\"stop\"}"),
        Ok(Order::Stop { force: false, by: None })
    );
    assert_eq!(Order::parse(b"{\"riad\":1,\"do\":\"status\",\"more\":[1]}"), Ok(Order::Status));
}

#[test]
fn what_is_none_is_refused_in_a_sentence() {
    for (line, words) in [
        (&b""[..], "does not understand"),
        (b"status\n", "does not understand"),
        (b"{\"do\":\"status\"}", "riad"),
        (b"{\"riad\":1}", "do"),
        (b"{\"riad\":1,\"do\":\"dance\"}", "dance"),
        (b"{\"riad\":5,\"do\":\"dance\"}", "older Riad's"),
        (b"{\"riad\":1,\"do\":\"stop\",\"force\":\"yes\"}", "yes"),
    ] {
        let error = Order::parse(line).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(Order::parse(&[b' '; MOST_REQUEST + 1]).unwrap_err().contains("4096"));
}

#[test]
fn replies_are_what_they_were() {
    let ok = Reply::Ok(serde_json::json!({"phase": "running"}));
    let error = Reply::Error("no".to_owned());
    for reply in [ok, error] {
        assert_eq!(Reply::parse(reply.to_line().as_bytes()).unwrap(), reply);
    }
}
