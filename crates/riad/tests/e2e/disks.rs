//! Disks that are attached to machines: what a guest finds, and what outlives it.

use crate::harness::{IMAGE, cache, end_to_end, image, text};
use crate::home::Home;

/// Waits until a disk has so many sectors in the guest.
fn has_sectors(home: &Home, disk: &str, count: u64) {
    home.soon("the size", || {
        home.shell("dev", &format!("cat /sys/block/{disk}/size")).trim() == count.to_string()
    });
}

#[test]
fn a_disk_is_written_by_one_machine_and_read_by_another() {
    end_to_end!();
    let home = Home::new();
    home.create("dev", &["--boot", "agent"]);
    home.ok(&["disk", "create", "data", "--size", "64M"]);
    home.ok(&["disk", "create", "logs", "--size", "32M"]);
    home.ok(&["disk", "attach", "data", "dev"]);
    home.ok(&["disk", "attach", "logs", "dev"]);
    home.ok(&["start", "dev"]);
    assert_eq!(home.shell("dev", "cat /sys/block/vd[bc]/serial"), "datalogs");
    home.shell(
        "dev",
        "mkfs.ext4 -q /dev/vdb && mount /dev/vdb /srv && echo kept >/srv/note && umount /srv",
    );
    let info = home.json(&["info", "dev"]);
    assert_eq!(info["disks"][1]["name"], "logs", "{info}");
    assert_eq!(info["disks"][1]["in_use"], true, "{info}");
    // Its guest hears of its size, and does not let it go while it uses it.
    home.ok(&["disk", "resize", "data", "96M"]);
    has_sectors(&home, "vdb", 96 << 11);
    home.shell("dev", "mount /dev/vdb /srv");
    let error = home.fails(&["disk", "detach", "data"]);
    assert!(error.contains("next start") && error.contains("mounted on /srv"), "{error}");
    for error in
        [home.fails(&["disk", "rm", "data", "--yes"]), home.fails(&["disk", "rm", "logs", "--yes"])]
    {
        assert!(error.contains("in use") || error.contains("attached to dev"), "{error}");
    }
    home.shell("dev", "umount /srv");
    home.ok(&["disk", "detach", "data", "dev"]);
    home.shell("dev", "! test -e /sys/block/vdb");
    let info = home.json(&["info", "dev"]);
    assert_eq!(info["run"]["disks"], serde_json::json!(["logs"]), "{info}");
    // Nobody has it: it can be changed, given to somebody, and comes back as it is.
    home.ok(&["disk", "resize", "data", "128M"]);
    home.ok(&["disk", "attach", "data", "dev"]);
    has_sectors(&home, "vdb", 128 << 11);
    home.shell(
        "dev",
        "mount /dev/vdb /srv && cat /srv/note && echo more >>/srv/note && umount /srv",
    );
    home.ok(&["disk", "detach", "data"]);

    // It goes to another machine that runs, and back, without either being stopped.
    home.create("other", &["--boot", "agent"]);
    home.ok(&["start", "other"]);
    home.ok(&["disk", "attach", "data", "other"]);
    assert_eq!(home.shell("other", "mount /dev/vdb /srv && cat /srv/note"), "kept\nmore\n");
    home.shell("other", "echo kept >/srv/note && umount /srv");
    let error = home.fails(&["disk", "attach", "data", "dev"]);
    assert!(error.contains("attached to other"), "{error}");
    home.ok(&["disk", "detach", "data"]);
    home.ok(&["delete", "other", "--yes", "--force"]);
    let said = text(&home.run(&["disk", "attach", "data", "dev", "--read-only"]).stderr);
    assert!(said.contains("now, and at its later starts"), "{said}");
    home.shell("dev", "grep -q 1 /sys/block/vdb/ro");
    home.ok(&["restart", "dev"]);
    // In the order in which they were attached.
    assert_eq!(home.shell("dev", "cat /sys/block/vd[bc]/serial"), "logsdata");
    let read = "mount -o ro,noload /dev/vdc /srv && cat /srv/note && cat /sys/block/vdc/ro";
    assert_eq!(home.shell("dev", read), "kept\n1\n");
    let output = home.run(&["exec", "dev", "--", "sh", "-c", "echo x >/dev/vdc"]);
    assert!(!output.status.success(), "what is read-only is not written");
    home.ok(&["delete", "dev", "--yes", "--force"]);
    let disks = home.json(&["disk", "ls"]);
    assert_eq!(disks.as_array().map(Vec::len), Some(2), "{disks}");
    home.ok(&["disk", "rm", "data", "logs", "--yes"]);
}

/// A disk of 256 MiB, with an MBR whose one partition begins at 1 MiB.
fn partitioned(path: &str) {
    let mut mbr = [0; 512];
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr[446..454].copy_from_slice(&[0x80, 0, 0, 0, 0x83, 0, 0, 0]);
    mbr[454..458].copy_from_slice(&2048u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&(255u32 << 11).to_le_bytes());
    std::fs::write(path, mbr).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_len(256 << 20).unwrap();
}

#[test]
fn a_bootable_disk_is_imported_with_the_kernel_that_is_on_it() {
    end_to_end!();
    let home = Home::new();
    let dir = tempfile::tempdir_in(cache()).unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    partitioned(&at("empty.img"));
    // A small system of its own, made in a machine.
    home.ok(&["disk", "create", "out", "--from", &at("empty.img")]);
    home.create("maker", &["--boot", "agent"]);
    home.ok(&["disk", "attach", "out", "maker"]);
    home.ok(&["start", "maker"]);
    let info = home.json(&["image", "info", IMAGE]);
    let kernel = info["kernel"].as_str().unwrap();
    let image = cache().join("images").join(image()).join("vmlinuz");
    let make = format!(
        "set -e; mkfs.ext4 -q /dev/vdb1; mount /dev/vdb1 /mnt; cd /mnt
         mkdir -p boot etc usr/bin usr/sbin usr/lib/x86_64-linux-gnu proc sys dev run tmp root
         for link in bin sbin lib lib64; do cp -a /$link .; done; cp -a /usr/lib64 usr/
         cp -a /etc/passwd /etc/group etc/; echo of its own >etc/note
         for program in sh dash cat uname; do cp -a /usr/bin/$program usr/bin/; done
         cp -a /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/ld-* \
             usr/lib/x86_64-linux-gnu/
         cd /usr/lib/modules/{kernel}
         mkdir -p /mnt$PWD
         # What is built into the kernel has no file.
         cp -a --parents modules.builtin kernel/drivers/virtio kernel/drivers/block kernel/fs/ext4 \
             kernel/fs/jbd2 kernel/fs/mbcache.ko kernel/net/vmw_vsock kernel/crypto kernel/lib \
             kernel/arch /mnt$PWD || true"
    );
    home.shell("maker", &make);
    home.ok(&["cp", image.to_str().unwrap(), &format!("maker:/mnt/boot/vmlinuz-{kernel}")]);
    home.shell("maker", "sync; umount /mnt");
    home.ok(&["delete", "maker", "--yes", "--force"]);
    let disk = home.json(&["disk", "info", "out"]);
    home.ok(&["image", "import", disk["file"].as_str().unwrap(), "--name", "own"]);
    let info = home.json(&["image", "info", "own"]);
    assert_eq!((&info["kernel"], &info["root_partition"]), (&kernel.into(), &1.into()), "{info}");
    home.ok(&["create", "dev", "--image", "own", "--memory", "512M", "--no-user"]);
    home.ok(&["start", "dev"]);
    let said = home.shell("dev", "cat /etc/note; uname -r; cat /sys/block/vda/vda1/partition");
    assert_eq!(said, format!("of its own\n{kernel}\n1\n"));
    home.ok(&["delete", "dev", "--yes", "--force"]);
    home.ok(&["image", "rm", "own"]);
}
