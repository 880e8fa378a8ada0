use super::{bytes, loads, measure, mount_points};

#[test]
fn what_the_kernel_says_is_read() {
    let text =
        "MemTotal:        1018832 kB\nMemFree:          800000 kB\nMemAvailable:     900000 kB\n";
    assert_eq!(bytes(text, "MemTotal:"), 1_018_832 << 10);
    assert_eq!(bytes(text, "MemAvailable:"), 900_000 << 10);
    assert_eq!(bytes(text, "SwapTotal:"), 0);
    assert_eq!(loads("0.20 12.08 3.12 1/80 11206\n"), ([20, 1208, 312], 80));
    assert_eq!(loads(""), ([0; 3], 0));
}

#[test]
fn block_devices_are_told_of_once_and_the_root_first() {
    let text = "proc /proc proc rw 0 0\n/dev/vdb /srv/my\\040data ext4 rw 0 0\n\
                /dev/vda / ext4 rw 0 0\n/dev/vda /again ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n";
    assert_eq!(mount_points(text), ["/", "/srv/my data"]);
}

#[test]
fn this_computer_can_be_measured() {
    let measures = measure();
    assert!(measures.memory_total >= measures.memory_available, "{measures:?}");
    assert!(measures.uptime > 0 && measures.memory_total > 0, "{measures:?}");
    assert!(measures.file_systems.iter().all(|fs| fs.used <= fs.size), "{measures:?}");
}
