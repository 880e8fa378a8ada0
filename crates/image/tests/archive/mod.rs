//! A Debian archive of our own, small enough to be made for each test: packages, indexes, a signed
//! release file, and an HTTP server in front of them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use pgp::composed::{
    CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey,
};
use pgp::ser::Serialize as _;
use pgp::types::Password;
use rand::SeedableRng;
use rand::rngs::StdRng;
use sha2::{Digest, Sha256};

/// What the server answers with.
pub(crate) type Files = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// The archive.
pub(crate) struct TestArchive {
    /// Address of the mirror.
    pub(crate) mirror: String,
    /// The files behind it, to be tampered with.
    pub(crate) files: Files,
    key: SignedSecretKey,
}

/// Packages the base system consists of.
const BASE: [&str; 14] = [
    "apt",
    "bc",
    "ca-certificates",
    "dbus",
    "debian-archive-keyring",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "netbase",
    "procps",
    "systemd-sysv",
    "udev",
    "base-files",
];
const BUILTIN: &str = "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/ext4.ko\n\
    kernel/overlay.ko\nkernel/vmw_vsock_virtio_transport.ko\n";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn key(seed: u64) -> SignedSecretKey {
    let mut params = SecretKeyParamsBuilder::default();
    params
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .primary_user_id("Archive <archive@mirror.test>".to_owned());
    params.build().expect("parameters").generate(StdRng::seed_from_u64(seed)).expect("a key")
}

fn tar_of(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000);
        builder.append_data(&mut header, path, content.as_slice()).expect("appended");
    }
    builder.into_inner().expect("written")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("written");
    out.finish().expect("finished")
}

fn deb(control: &str, data: &[(String, Vec<u8>)]) -> Vec<u8> {
    let control = tar_of(&[("./control".to_owned(), control.as_bytes().to_vec())]);
    let data = gzip(&tar_of(data));
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in
        [("debian-binary", &b"2.0\n"[..]), ("control.tar", &control), ("data.tar.gz", &data)]
    {
        bytes.extend(format!("{name:<16}{:<32}{:<10}`\n", 0, content.len()).bytes());
        bytes.extend(content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

impl TestArchive {
    /// An archive of bookworm for amd64.
    pub(crate) fn new() -> Self {
        let files: Files = Arc::default();
        let mirror = serve(Arc::clone(&files));
        let archive = Self { mirror: format!("{mirror}/debian"), files, key: key(1) };
        archive.publish("Debian", &[]);
        archive
    }

    /// Makes packages, indexes and release file anew. `extra` are further packages with their
    /// fields.
    pub(crate) fn publish(&self, origin: &str, extra: &[(&str, &str)]) {
        let mut index = String::new();
        let mut add = |name: &str, fields: &str, data: &[(String, Vec<u8>)]| {
            let control = format!(
                "Package: {name}\nVersion: 1\nArchitecture: amd64\n{fields}Description: test\n"
            );
            let file = deb(&control, data);
            let path = format!("pool/{name}.deb");
            let _ = write!(
                index,
                "{control}Filename: {path}\nSize: {}\nSHA256: {}\n\n",
                file.len(),
                sha256(&file)
            );
            self.put(&path, file);
        };
        for name in BASE {
            let data = vec![(format!("./usr/share/{name}"), name.as_bytes().to_vec())];
            add(name, "Priority: required\n", &data);
        }
        for (name, fields) in extra {
            add(name, fields, &[]);
        }
        add("linux-image-cloud-amd64", "Depends: linux-image-6.1-cloud-amd64\n", &[]);
        add(
            "linux-image-6.1-cloud-amd64",
            "Depends: initramfs-tools\n",
            &[
                ("./boot/vmlinuz-6.1-cloud-amd64".to_owned(), b"kernel".to_vec()),
                (
                    "./lib/modules/6.1-cloud-amd64/modules.builtin".to_owned(),
                    BUILTIN.as_bytes().to_vec(),
                ),
            ],
        );
        let index = gzip(index.as_bytes());
        let path = "main/binary-amd64/Packages.gz";
        let release = format!(
            "Origin: {origin}\nCodename: bookworm\nSuite: oldstable\n\
             Date: Sat, 11 Jul 2026 10:16:37 UTC\nSHA256:\n {} {} {path}\n",
            sha256(&index),
            index.len()
        );
        self.put(&format!("dists/bookworm/{path}"), index);
        let signed = CleartextSignedMessage::sign(
            StdRng::seed_from_u64(2),
            &release,
            &self.key.primary_key,
            &Password::empty(),
        )
        .expect("signed")
        .to_armored_bytes(Default::default())
        .expect("armored");
        self.put("dists/bookworm/InRelease", signed);
    }

    /// The public key that signs the archive.
    pub(crate) fn keyring(&self) -> Vec<u8> {
        SignedPublicKey::from(self.key.clone()).to_bytes().expect("serialised")
    }

    /// The public key of somebody else.
    pub(crate) fn wrong_keyring() -> Vec<u8> {
        SignedPublicKey::from(key(3)).to_bytes().expect("serialised")
    }

    /// Changes a file of the archive.
    pub(crate) fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.files.lock().expect("unlocked");
        change(files.get_mut(&format!("/debian/{path}")).expect("there"));
    }

    fn put(&self, path: &str, content: Vec<u8>) {
        self.files.lock().expect("unlocked").insert(format!("/debian/{path}"), content);
    }
}

fn serve(files: Files) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
            let Some(Ok(request)) = lines.next() else { continue };
            for line in lines.by_ref() {
                if line.map_or(true, |line| line.is_empty()) {
                    break;
                }
            }
            let path = request.split(' ').nth(1).unwrap_or("").to_owned();
            let body = files.lock().expect("unlocked").get(&path).cloned();
            let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
            let body = body.unwrap_or_default();
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
        }
    });
    base
}
