//! OpenPGP (RFC 9580): signatures and keys of the right form. Nobody made them, so none of them holds.

/// A clear-signed text (section 7).
#[must_use]
pub fn clear_signed(text: &[u8]) -> Vec<u8> {
    signed_with(text, &signature_packet())
}

/// A signature over a document.
#[must_use]
pub fn signature_packet() -> Vec<u8> {
    packet(2, &signature(0x01))
}

/// A text and the packets that are to vouch for it.
#[must_use]
pub fn signed_with(text: &[u8], packets: &[u8]) -> Vec<u8> {
    let mut out = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n".to_vec();
    out.extend(text);
    out.extend(armor("SIGNATURE", packets));
    out
}

/// A key with a name and a signature over both.
#[must_use]
pub fn public_key() -> Vec<u8> {
    // Version 4, made in 2020, EdDSA with the OID of Ed25519, a point.
    let mut key = vec![4, 0x5e, 0x0b, 0xe1, 0x00, 22, 9];
    key.extend([0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01]);
    key.extend([0x01, 0x07, 0x40]);
    key.extend([0x58; 32]);
    let mut out = packet(6, &key);
    out.extend(packet(13, b"Nobody <nobody@mirror.test>"));
    out.extend(packet(2, &signature(0x13)));
    out
}

/// The same, in letters.
#[must_use]
pub fn public_key_armored() -> Vec<u8> {
    armor("PUBLIC KEY BLOCK", &public_key())
}

/// A packet (section 4.2), in the new format.
fn packet(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xc0 | tag];
    match body.len() {
        len @ 0..=191 => out.push(len as u8),
        len => out.extend([((len - 192) >> 8) as u8 + 192, (len - 192) as u8]),
    }
    out.extend(body);
    out
}

/// A signature (section 5.2.3): version 4, EdDSA over SHA-512, a time, flags, an issuer, two numbers.
fn signature(kind: u8) -> Vec<u8> {
    let mut out = vec![4, kind, 22, 10];
    // Hashed: made in 2024; for a key, what it may do.
    out.extend([0, 9, 5, 2, 0x66, 0x00, 0x00, 0x00, 2, 27, 0x03]);
    // Not hashed: the issuer.
    out.extend([0, 10, 9, 16, 1, 2, 3, 4, 5, 6, 7, 8]);
    out.extend([0xab, 0xcd]);
    for _ in 0..2 {
        out.extend([0x01, 0x00]);
        out.extend([0x9d; 32]);
    }
    out
}

/// Letters for bytes (section 6.2).
fn armor(what: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = format!("-----BEGIN PGP {what}-----\n\n").into_bytes();
    for line in bytes.chunks(48) {
        out.extend(base64(line));
        out.push(b'\n');
    }
    out.extend(format!("-----END PGP {what}-----\n").bytes());
    out
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for group in bytes.chunks(3) {
        let byte = |n: usize| u32::from(group.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * n) & 63) as usize];
            out.push(if n <= group.len() { letter } else { b'=' });
        }
    }
    out
}
