//! A build from Debian's own archive, up to the point where a virtual machine would take over.

use std::path::Path;
use std::process::Command;

use riad_image::{BuildOptions, Configure, Progress, build};

/// Checks the file system it is given with e2fsck.
struct Check;

impl Configure for Check {
    fn configure(
        &mut self,
        rootfs_image: &Path,
        kernel: &Path,
        initramfs: &Path,
        script: &str,
        _progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let output = Command::new("e2fsck").arg("-fn").arg(rootfs_image).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(std::fs::metadata(kernel)?.len() > 1 << 20);
        let boot = std::fs::read(initramfs)?;
        assert!(boot.windows(5).any(|w| w == b"vsock"));
        let image = std::fs::File::open(rootfs_image)?;
        let fs = mkext4::reader::Fs::open(&image)?;
        for path in [script, "/usr/bin/sh", "/usr/bin/apt-get", "/usr/bin/bc", "/usr/sbin/depmod"] {
            fs.resolve(path)?;
        }
        Ok(())
    }
}

#[test]
#[ignore = "needs the network, and a host whose apt uses a Debian mirror"]
fn every_known_release_unpacks_into_a_clean_file_system() {
    let directory = tempfile::tempdir().expect("a directory");
    for name in ["debian:bookworm", "debian:trixie", "debian:forky", "debian:sid"] {
        let reference = name.parse().expect("a name");
        let mut options = BuildOptions::new(reference, "amd64", directory.path());
        options.include = vec!["gcc".to_owned(), "python3".to_owned()];
        build(&options, &mut Check, b"agent", &mut |_| {}).expect(name);
    }
}

#[test]
#[ignore = "needs the network, and a host whose apt uses a Debian mirror"]
fn another_architecture_unpacks_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let reference = "debian:trixie".parse().expect("a name");
    let options = BuildOptions::new(reference, "arm64", directory.path());
    build(&options, &mut Check, b"agent", &mut |_| {}).expect("arm64");
}
