use std::sync::OnceLock;

use pgp::composed::{
    CleartextSignedMessage, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedPublicKey,
    SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Duration, KeyDetails, Password, SigningKey, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const TEXT: &str = "Origin: Debian\nCodename: trixie\nSuite: stable\n\
    Date: Sat, 11 Jul 2026 10:16:37 UTC\nValid-Until: Sun, 12 Jul 2026 10:16:37 UTC\n\
    Acquire-By-Hash: yes\n- a line that begins with a dash: x\nSHA256:\n \
    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 7 main/binary-amd64/Packages.xz\n \
    e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 9 main/binary-amd64/Packages.gz\n";

fn now() -> u64 {
    u64::from(Timestamp::now().as_secs())
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

/// A key whose primary may only certify, with a signing subkey, as Debian's keys are.
fn generate(kind: KeyType, subkey_signs: bool, seed: u64) -> SignedSecretKey {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(kind.clone())
        .can_sign(subkey_signs)
        .can_authenticate(!subkey_signs)
        .can_encrypt(EncryptionCaps::None)
        .build()
        .expect("subkey parameters");
    let mut params = SecretKeyParamsBuilder::default();
    params
        .key_type(kind)
        .can_certify(true)
        .can_sign(false)
        .can_encrypt(EncryptionCaps::None)
        .primary_user_id("Archive <archive@mirror.test>".to_owned())
        .subkey(subkey);
    params.build().expect("parameters").generate(StdRng::seed_from_u64(seed)).expect("a key")
}

fn ed25519() -> &'static SignedSecretKey {
    static KEY: OnceLock<SignedSecretKey> = OnceLock::new();
    KEY.get_or_init(|| generate(KeyType::Ed25519Legacy, true, 1))
}

fn rsa() -> &'static SignedSecretKey {
    static KEY: OnceLock<SignedSecretKey> = OnceLock::new();
    KEY.get_or_init(|| generate(KeyType::Rsa(2048), true, 2))
}

fn public(key: &SignedSecretKey) -> Vec<u8> {
    SignedPublicKey::from(key.clone()).to_bytes().expect("serialised")
}

fn keyring(key: &SignedSecretKey) -> Keyring {
    Keyring::parse(&public(key)).expect("a keyring")
}

/// Signs as apt's archives are: made at `made`, living for `life` seconds when given.
fn sign(key: &impl SigningKey, hash: HashAlgorithm, made: u64, life: Option<u32>) -> String {
    let mut config = SignatureConfig::from_key(rng(), key, SignatureType::Text).expect("a config");
    config.hash_alg = hash;
    let made = Timestamp::from_secs(u32::try_from(made).expect("a date"));
    let mut data = vec![
        SubpacketData::SignatureCreationTime(made),
        SubpacketData::IssuerFingerprint(key.fingerprint()),
    ];
    data.extend(life.map(|life| SubpacketData::SignatureExpirationTime(Duration::from_secs(life))));
    config.hashed_subpackets =
        data.into_iter().map(|d| Subpacket::regular(d).expect("a subpacket")).collect();
    CleartextSignedMessage::new(TEXT, config, key, &Password::empty())
        .expect("signed")
        .to_armored_string(Default::default())
        .expect("armored")
}

fn signed() -> String {
    sign(&ed25519().secret_subkeys[0].key, HashAlgorithm::Sha512, now(), None)
}

#[test]
fn a_good_signature_by_a_subkey_gives_the_text() {
    let text = verify_clear_signed(signed().as_bytes(), &keyring(ed25519()), now());
    assert_eq!(text.expect("good").trim_end(), TEXT.trim_end());
}

#[test]
fn rsa_signs_too() {
    let file = sign(&rsa().secret_subkeys[0].key, HashAlgorithm::Sha256, now(), None);
    verify_clear_signed(file.as_bytes(), &keyring(rsa()), now()).expect("good");
}

#[test]
fn changed_text_is_refused() {
    for (from, to) in [("Origin: Debian", "Origin: Nobody"), (" 7 ", " 8 "), ("dash: x\n", "")] {
        let file = signed().replace(from, to);
        let reason =
            verify_clear_signed(file.as_bytes(), &keyring(ed25519()), now()).expect_err("changed");
        assert!(reason.contains("changed on the way"), "{reason}");
    }
}

#[test]
fn text_outside_of_the_signature_is_never_read() {
    let file = format!("Origin: Nobody\n\n{}\nOrigin: Nobody\n", signed());
    if let Ok(text) = verify_clear_signed(file.as_bytes(), &keyring(ed25519()), now()) {
        assert!(!text.contains("Nobody"));
    }
}

#[test]
fn a_key_that_is_not_in_the_keyring_is_named() {
    let other = generate(KeyType::Ed25519Legacy, true, 3);
    let reason =
        verify_clear_signed(signed().as_bytes(), &keyring(&other), now()).expect_err("unknown");
    assert!(reason.contains("which the keyring does not have"), "{reason}");
    let fingerprint = format!("{:X}", ed25519().secret_subkeys[0].key.fingerprint());
    assert!(reason.contains(&fingerprint), "{reason}");
}

#[test]
fn keys_that_may_not_sign_do_not_count() {
    let primary = sign(&ed25519().primary_key, HashAlgorithm::Sha512, now(), None);
    let reason = verify_clear_signed(primary.as_bytes(), &keyring(ed25519()), now())
        .expect_err("a certification key");
    assert!(reason.contains("may not sign documents"), "{reason}");
    let key = generate(KeyType::Ed25519Legacy, false, 4);
    let file = sign(&key.secret_subkeys[0].key, HashAlgorithm::Sha512, now(), None);
    assert!(verify_clear_signed(file.as_bytes(), &keyring(&key), now()).is_err());
}

#[test]
fn a_subkey_grafted_onto_another_key_does_not_count() {
    let stranger = generate(KeyType::Ed25519Legacy, true, 5);
    let mut certificate = SignedPublicKey::from(ed25519().clone());
    certificate.public_subkeys = SignedPublicKey::from(stranger.clone()).public_subkeys;
    let keyring = Keyring::parse(&certificate.to_bytes().expect("serialised")).expect("a keyring");
    let file = sign(&stranger.secret_subkeys[0].key, HashAlgorithm::Sha512, now(), None);
    let reason = verify_clear_signed(file.as_bytes(), &keyring, now()).expect_err("grafted");
    assert!(reason.contains("does not belong"), "{reason}");
}

#[test]
fn times_are_checked() {
    let key = &ed25519().secret_subkeys[0].key;
    let expired = sign(key, HashAlgorithm::Sha512, now() + 1, Some(10));
    let reason = verify_clear_signed(expired.as_bytes(), &keyring(ed25519()), now() + 1000)
        .expect_err("expired");
    assert!(reason.contains("has expired"), "{reason}");
    let future = sign(key, HashAlgorithm::Sha512, now() + 1_000_000, None);
    let reason =
        verify_clear_signed(future.as_bytes(), &keyring(ed25519()), now()).expect_err("future");
    assert!(reason.contains("in the future"), "{reason}");
    let before = sign(key, HashAlgorithm::Sha512, now() - 1_000_000, None);
    let reason =
        verify_clear_signed(before.as_bytes(), &keyring(ed25519()), now()).expect_err("too old");
    assert!(reason.contains("younger"), "{reason}");
}

#[test]
fn broken_hashes_do_not_count() {
    let file = sign(&rsa().secret_subkeys[0].key, HashAlgorithm::Sha1, now(), None);
    let reason = verify_clear_signed(file.as_bytes(), &keyring(rsa()), now()).expect_err("SHA-1");
    assert!(reason.contains("a hash that is broken"), "{reason}");
}

#[test]
fn armored_keyrings_may_have_several_blocks() {
    let other = generate(KeyType::Ed25519Legacy, true, 6);
    let armored = |key: &SignedSecretKey| {
        SignedPublicKey::from(key.clone()).to_armored_string(Default::default()).expect("armored")
    };
    let both = format!("{}\n{}", armored(&other), armored(ed25519()));
    let keyring = Keyring::parse(both.as_bytes()).expect("a keyring");
    assert_eq!(keyring.len(), 2);
    verify_clear_signed(signed().as_bytes(), &keyring, now()).expect("good");
    let two = [public(&other), public(ed25519())].concat();
    assert_eq!(Keyring::parse(&two).expect("a keyring").len(), 2);
    assert!(Keyring::parse(b"").is_err());
    assert!(Keyring::parse(b"rubbish").is_err());
}

#[test]
fn a_missing_keyring_says_what_to_do() {
    let error = Keyring::read(&[PathBuf::from("/nonexistent/keyring.gpg")])
        .expect_err("missing")
        .to_string();
    for word in ["debian-archive-keyring", "--keyring", "--insecure-no-verify", "/nonexistent"] {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn unsigned_files_are_refused_but_can_be_read_without_verification() {
    assert!(verify_clear_signed(TEXT.as_bytes(), &keyring(ed25519()), now()).is_err());
    assert!(clear_text(TEXT.as_bytes()).is_err());
    let other = signed().replace("Origin: Debian", "Origin: Nobody");
    assert!(clear_text(other.as_bytes()).expect("readable").contains("Origin: Nobody"));
}

#[test]
fn release_files_are_read() {
    let release = Release::parse(
        &TEXT.replace("- a line", "X-A").replace("X-A that begins with a dash", "X-Dash"),
    )
    .expect("well formed");
    assert_eq!((release.origin.as_str(), release.codename.as_str()), ("Debian", "trixie"));
    assert_eq!(release.date, 1_783_764_997);
    assert_eq!(release.valid_until, Some(1_783_764_997 + 86_400));
    assert!(release.by_hash);
    let sizes: Vec<u64> =
        release.package_indexes("main", "amd64").iter().map(|file| file.size).collect();
    assert_eq!(sizes, [7, 9]);
    assert!(release.package_indexes("main", "arm64").is_empty());
}

#[test]
fn malformed_release_files_are_refused() {
    for text in ["", "Origin: Debian\n", "SHA256:\n x 1 y\n", "SHA256:\n 00 1 y\n", "nonsense"] {
        assert!(Release::parse(text).is_err(), "{text}");
    }
    let huge = format!("SHA256:\n {} 99999999999999999999999 y\n", "0".repeat(64));
    assert!(Release::parse(&huge).is_err());
}

#[test]
fn dates_are_read() {
    assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
    assert_eq!(parse_date("Thu, 29 Feb 2024 12:34:56 UTC"), Some(1_709_210_096));
    assert_eq!(parse_date("11 Jul 2026 10:16:37 +0000"), Some(1_783_764_997));
    for bad in [
        "",
        "x",
        "Sat, 11 Jul 2026 10:16:37 CEST",
        "0 Jan 2026 1:1:1 UTC",
        "1 Foo 2026 1:1:1 UTC",
        "1 Jan 99999999999999 1:1:1 UTC",
    ] {
        assert_eq!(parse_date(bad), None, "{bad}");
    }
}

proptest::proptest! {
    #[test]
    fn any_file_is_read_or_refused(text in "\\PC{0,300}") {
        let _ = Release::parse(&text);
        let _ = parse_date(&text);
        let _ = clear_text(text.as_bytes());
    }
}
