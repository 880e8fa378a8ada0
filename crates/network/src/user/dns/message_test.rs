use proptest::prelude::*;

use super::*;

fn question(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(encode_name(name).unwrap());
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

#[test]
fn a_question_is_read_and_answered() {
    let question = Question::parse(&question("Host.Riad.Internal", A)).unwrap();
    assert_eq!((question.name.as_str(), question.kind), ("host.riad.internal", A));
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    let answer = question.answer(0, &[Record::Address(address)]);
    assert!(question.is_answered_by(&answer, 0x1234));
    assert!(!question.is_answered_by(&answer, 0x1235));
    assert_eq!(addresses(&answer), [(address, Duration::from_secs(30))]);
    // Case is kept as it was asked, and does not count.
    assert!(answer.windows(4).any(|part| part == b"Riad"));
    let other = Question::parse(&self::question("host.riad.interna1", A)).unwrap();
    assert!(!other.is_answered_by(&answer, 0x1234));
}

#[test]
fn what_is_no_question_is_told_so() {
    let good = question("example.com", A);
    let mut answer = good.clone();
    answer[2] |= 0x80;
    assert_eq!(Question::parse(&answer), Err(None));
    assert_eq!(Question::parse(&good[..11]), Err(None));
    let mut update = good.clone();
    update[2] |= 0x28;
    assert_eq!(Question::parse(&update), Err(Some(NOTIMP)));
    let mut two = good.clone();
    two[5] = 2;
    assert_eq!(Question::parse(&two), Err(Some(FORMERR)));
    // A name that points at itself.
    let mut pointer = good[..HEADER].to_vec();
    pointer.extend([0xc0, 0x0c, 0, 1, 0, 1]);
    assert_eq!(Question::parse(&pointer), Err(Some(FORMERR)));
    assert_eq!(refuse(&good, FORMERR).unwrap()[..4], [0x12, 0x34, 0x81, FORMERR]);
}

#[test]
fn addresses_have_names_backwards() {
    let reverse = |name: &str| Question::parse(&question(name, PTR)).unwrap().reverse();
    assert_eq!(reverse("1.2.0.10.in-addr.arpa"), Some("10.0.2.1".parse().unwrap()));
    assert_eq!(reverse("2.0.10.in-addr.arpa"), None);
    assert_eq!(reverse("1.1.2.0.10.in-addr.arpa"), None);
    let nibbles = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
    assert_eq!(reverse(nibbles), Some("2001:db8::1".parse().unwrap()));
    assert_eq!(reverse(&nibbles[2..]), None);
}

proptest! {
    /// Nothing that arrives harms.
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Question::parse(&bytes);
        let _ = addresses(&bytes);
        let _ = refuse(&bytes, FORMERR);
    }

    /// A question that is read is answered with the same question.
    #[test]
    fn answers_answer(name in "[a-zA-Z0-9-]{1,20}(\\.[a-z]{1,20}){0,5}", kind: u16) {
        let question = Question::parse(&question(&name, kind)).unwrap();
        prop_assert_eq!(&question.name, &name.to_ascii_lowercase());
        prop_assert!(question.is_answered_by(&question.answer(NXDOMAIN, &[]), 0x1234));
    }
}
