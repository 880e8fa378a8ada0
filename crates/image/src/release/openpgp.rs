//! OpenPGP signatures on release files (RFC 9580, the cleartext signature framework of section 7).
//!
//! A signature counts when a key of the keyring made it that was allowed to sign: the primary key,
//! or a subkey that the primary key bound as a signing key and that signed back; neither revoked,
//! nor expired when the signature was made; and the hash is one that still is one.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use pgp::composed::{CleartextSignedMessage, PublicOrSecret, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag};

use super::ReleaseError;

/// Certificates that may vouch for an archive.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    certificates: Vec<SignedPublicKey>,
}

/// A keyring larger than this is not one.
const KEYRING_LIMIT: u64 = 16 << 20;

impl Keyring {
    /// Where Debian's keyring lies on a host that has it.
    pub const DEFAULT_FILES: [&str; 2] = [
        "/usr/share/keyrings/debian-archive-keyring.gpg",
        "/usr/share/keyrings/debian-archive-keyring.pgp",
    ];

    /// Reads the first of Debian's keyrings that exists.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be read.
    pub fn read_default() -> Result<Self, ReleaseError> {
        match Self::DEFAULT_FILES.iter().map(Path::new).find(|path| path.exists()) {
            Some(path) => Self::read(&[path.to_owned()]),
            None => Err(ReleaseError::MissingKeyring { looked: Self::DEFAULT_FILES.join(" and ") }),
        }
    }

    /// Reads keyring files, binary or ASCII-armored.
    ///
    /// # Errors
    ///
    /// One of them is missing, unreadable or without a usable key.
    pub fn read(files: &[PathBuf]) -> Result<Self, ReleaseError> {
        use std::io::Read;
        let mut all = Self::default();
        for path in files {
            let mut bytes = Vec::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(KEYRING_LIMIT).read_to_end(&mut bytes))
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        ReleaseError::MissingKeyring { looked: path.display().to_string() }
                    }
                    _ => ReleaseError::BadKeyring { path: path.clone(), reason: error.to_string() },
                })?;
            let keyring = Self::parse(&bytes)
                .map_err(|reason| ReleaseError::BadKeyring { path: path.clone(), reason })?;
            all.certificates.extend(keyring.certificates);
        }
        Ok(all)
    }

    /// Reads certificates, binary or in one or more ASCII-armored blocks. Certificates of kinds
    /// this build does not know are left out.
    ///
    /// # Errors
    ///
    /// Not one certificate could be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
        let mut certificates = Vec::new();
        let mut first_error = None;
        let mut add = |bytes: &[u8]| match PublicOrSecret::from_reader_many(bytes) {
            Ok((keys, _)) => {
                for key in keys {
                    match key {
                        Ok(PublicOrSecret::Public(key)) => certificates.push(key),
                        Ok(PublicOrSecret::Secret(_)) => {}
                        Err(error) => {
                            first_error.get_or_insert_with(|| error.to_string());
                        }
                    }
                }
            }
            Err(error) => {
                first_error.get_or_insert_with(|| error.to_string());
            }
        };
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(BEGIN) => {
                for block in text.split(BEGIN).skip(1) {
                    add(format!("{BEGIN}{block}").as_bytes());
                }
            }
            _ => add(bytes),
        }
        if certificates.is_empty() {
            return Err(first_error.unwrap_or_else(|| "it has no public keys".to_owned()));
        }
        Ok(Self { certificates })
    }

    /// How many certificates there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }
}

/// The text of a clear-signed file, whoever signed it.
///
/// # Errors
///
/// The file is not clear-signed; the reason as a clause.
pub fn clear_text(file: &[u8]) -> Result<String, String> {
    Ok(text_of(&message(file)?))
}

/// The text of a clear-signed file, if a key of the keyring vouches for it. `now` is the time in
/// seconds since the Unix epoch.
///
/// # Errors
///
/// Nobody in the keyring vouches for the file; the reason as a clause.
pub fn verify_clear_signed(file: &[u8], keyring: &Keyring, now: u64) -> Result<String, String> {
    let message = message(file)?;
    let signed = message.signed_text();
    let mut reasons: Vec<String> = Vec::new();
    for signature in message.signatures() {
        match verify_one(signature, signed.as_bytes(), keyring, now) {
            Ok(()) => return Ok(text_of(&message)),
            Err(reason) => reasons.push(reason),
        }
    }
    reasons.dedup();
    Err(if reasons.is_empty() { "it has no signature".to_owned() } else { reasons.join("; ") })
}

fn message(file: &[u8]) -> Result<CleartextSignedMessage, String> {
    let (message, _) = CleartextSignedMessage::from_armor(Cursor::new(file))
        .map_err(|error| format!("it is not a clear-signed text ({error})"))?;
    Ok(message)
}

/// The signed text with plain line ends. Only what was hashed is ever read, never the file's own
/// bytes.
fn text_of(message: &CleartextSignedMessage) -> String {
    message.signed_text().replace("\r\n", "\n")
}

fn verify_one(
    signature: &Signature,
    signed: &[u8],
    keyring: &Keyring,
    now: u64,
) -> Result<(), String> {
    let issuer = issuer_name(signature);
    if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
        return Err("a signature is not one over a document".to_owned());
    }
    if !signature.hash_alg().is_some_and(is_strong) {
        return Err(format!("the signature of key {issuer} uses a hash that is broken"));
    }
    let made = signature.created().map_or(0, |time| u64::from(time.as_secs()));
    // A clock that is a day off is no reason to fail.
    if made > now.saturating_add(86_400) {
        return Err(format!(
            "the signature of key {issuer} was made in the future (is this host's clock right?)"
        ));
    }
    if let Some(life) = signature.signature_expiration_time()
        && life.as_secs() != 0
        && made.saturating_add(u64::from(life.as_secs())) < now
    {
        return Err(format!("the signature of key {issuer} has expired"));
    }
    let mut known = None;
    for certificate in &keyring.certificates {
        let primary = &certificate.primary_key;
        if signature.verify(primary, signed).is_ok() {
            match primary_may_sign(certificate, made) {
                Ok(()) => return Ok(()),
                Err(reason) => known = Some(reason),
            }
        }
        for subkey in &certificate.public_subkeys {
            if signature.verify(&subkey.key, signed).is_ok() {
                match subkey_may_sign(certificate, subkey, made) {
                    Ok(()) => return Ok(()),
                    Err(reason) => known = Some(reason),
                }
            }
        }
    }
    if let Some(reason) = known {
        return Err(format!("key {issuer} signed it, but {reason}"));
    }
    let is_ours = keyring.certificates.iter().any(|certificate| {
        claims(signature, &certificate.primary_key)
            || certificate.public_subkeys.iter().any(|subkey| claims(signature, &subkey.key))
    });
    Err(if is_ours {
        format!("it is not what key {issuer} signed: it was changed on the way")
    } else {
        format!("it is signed by key {issuer}, which the keyring does not have")
    })
}

/// SHA-2 and SHA-3; not MD5, SHA-1 or RIPEMD-160.
fn is_strong(hash: HashAlgorithm) -> bool {
    matches!(
        hash,
        HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512
    )
}

/// Who a signature says made it.
fn issuer_name(signature: &Signature) -> String {
    signature
        .issuer_fingerprint()
        .first()
        .map(|fingerprint| format!("{fingerprint:X}"))
        .or_else(|| signature.issuer_key_id().first().map(|id| id.to_string().to_uppercase()))
        .unwrap_or_else(|| "(unknown)".to_owned())
}

fn claims(signature: &Signature, key: &impl KeyDetails) -> bool {
    signature.issuer_fingerprint().iter().any(|&fp| *fp == key.fingerprint())
        || signature.issuer_key_id().iter().any(|&id| *id == key.legacy_key_id())
}

/// The newest of a primary key's valid statements about itself.
fn self_signature(certificate: &SignedPublicKey) -> Option<&Signature> {
    let key = &certificate.primary_key;
    let users = certificate.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|signature| {
            signature.is_certification()
                && signature.verify_certification(key, Tag::UserId, &user.id).is_ok()
        })
    });
    let direct = certificate
        .details
        .direct_signatures
        .iter()
        .filter(|s| s.typ() == Some(SignatureType::Key) && s.verify_key(key).is_ok());
    users.chain(direct).max_by_key(|s| s.created().map_or(0, |time| time.as_secs()))
}

/// Whether the certificate as a whole is good at a time.
fn check_certificate(certificate: &SignedPublicKey, at: u64) -> Result<&Signature, &'static str> {
    let key = &certificate.primary_key;
    let is_revoked = certificate.details.revocation_signatures.iter().any(|signature| {
        signature.typ() == Some(SignatureType::KeyRevocation) && signature.verify_key(key).is_ok()
    });
    if is_revoked {
        return Err("the key was revoked");
    }
    let own = self_signature(certificate).ok_or("the key does not vouch for itself")?;
    check_time(key, own, at)?;
    Ok(own)
}

/// Whether a key existed and had not expired at a time, by the signature that describes it.
fn check_time(key: &impl KeyDetails, own: &Signature, at: u64) -> Result<(), &'static str> {
    let born = u64::from(key.created_at().as_secs());
    if at < born {
        return Err("the key is younger than the signature");
    }
    match own.key_expiration_time().map_or(0, |life| u64::from(life.as_secs())) {
        0 => Ok(()),
        life if at <= born.saturating_add(life) => Ok(()),
        _ => Err("the key had expired by then"),
    }
}

fn primary_may_sign(certificate: &SignedPublicKey, at: u64) -> Result<(), &'static str> {
    let own = check_certificate(certificate, at)?;
    // A key without flags may do everything it can (RFC 9580, 5.2.3.29).
    let has_flags = own.key_flags() != pgp::packet::KeyFlags::default();
    if has_flags && !own.key_flags().sign() {
        return Err("the key may not sign documents");
    }
    Ok(())
}

fn subkey_may_sign(
    certificate: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    at: u64,
) -> Result<(), &'static str> {
    let primary = &certificate.primary_key;
    check_certificate(certificate, at)?;
    let is_bound = |s: &&Signature| s.verify_subkey_binding(primary, &subkey.key).is_ok();
    let of =
        |kind| subkey.signatures.iter().filter(move |s| s.typ() == Some(kind)).filter(is_bound);
    if of(SignatureType::SubkeyRevocation).next().is_some() {
        return Err("the subkey was revoked");
    }
    let binding = of(SignatureType::SubkeyBinding)
        .max_by_key(|s| s.created().map_or(0, |time| time.as_secs()))
        .ok_or("the subkey does not belong to the key")?;
    check_time(&subkey.key, binding, at)?;
    if !binding.key_flags().sign() {
        return Err("the subkey may not sign documents");
    }
    let signs_back = binding
        .embedded_signature()
        .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if !signs_back {
        return Err("the subkey does not acknowledge the key it is bound to");
    }
    Ok(())
}
