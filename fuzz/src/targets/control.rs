//! What arrives on a machine's control socket, and what comes back from a machine's process.

use riad_host::machines::NetMode;
use riad_host::process::control::{MOST_REQUEST, Order, Reply};

use super::Target;

/// Requests and replies.
pub(super) const CONTROL: Target = Target {
    name: "control",
    what: "lines on a machine's control socket, both ways",
    unit: "steps",
    run: parse,
    seeds: || {
        let orders = [
            Order::Status,
            Order::Session,
            Order::Stop { force: true, by: Some("me".to_owned()) },
            Order::Console,
            Order::Events,
            Order::Stats,
            Order::Grow { size: 1 << 33 },
            Order::Attach { disk: "data".to_owned(), read_only: true },
            Order::Detach { disk: "data".to_owned() },
            Order::Leave { network: "lab".to_owned(), reach: NetMode::Nat },
            Order::Provision { scripts: vec!["a.sh".to_owned()] },
        ];
        let replies =
            [Reply::Ok(serde_json::json!({"phase": "running"})), Reply::Error("no".into())];
        let orders = orders.iter().map(|order| order.to_line().into_bytes());
        orders.chain(replies.iter().map(|reply| reply.to_line().into_bytes())).collect()
    },
    generate: None,
    words: &[
        b"\"riad\":1",
        b"\"do\":",
        b"\"stop\"",
        b"\"force\":true",
        b"{\"ok\":",
        b"[[[[",
        b"\\u0000",
    ],
};

/// What is understood means the same when it is said again.
fn parse(bytes: &[u8]) -> u64 {
    let mut depth = 0;
    match Order::parse(bytes) {
        Ok(order) => {
            assert!(bytes.len() <= MOST_REQUEST);
            assert_eq!(Order::parse(order.to_line().as_bytes()), Ok(order));
            depth += 2;
        }
        // It is shown to people.
        Err(sentence) => assert!(!sentence.is_empty()),
    }
    if let Ok(reply) = Reply::parse(bytes) {
        assert!(Reply::parse(reply.to_line().as_bytes()).is_ok());
        depth += 1;
    }
    depth
}
