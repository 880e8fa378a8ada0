use super::*;

#[test]
fn a_bare_command_line_gives_the_usual() {
    let options = BootOptions::parse("console=ttyS0 root=/dev/sdz quiet\n");
    assert_eq!((options.root.as_str(), options.root_type.as_str()), ("/dev/vda", "ext4"));
    assert!(!options.read_only && options.init.is_none() && options.hostname.is_none());
    assert_eq!(options.device_limit(), Duration::from_secs(30));
}

#[test]
fn every_word_is_heard() {
    let options = BootOptions::parse(
        "riad.root=/dev/vdb riad.rootfstype=btrfs riad.rootflags=\"subvol=a b,noatime\" riad.ro \
         riad.init=/sbin/init riad.hostname=box riad.timescale=8 \
         riad.dns=192.0.2.1 riad.later=1",
    );
    let name_servers = vec!["192.0.2.1".parse().unwrap()];
    assert_eq!(
        options,
        BootOptions {
            root: "/dev/vdb".into(),
            root_type: "btrfs".into(),
            root_flags: "subvol=a b,noatime".into(),
            read_only: true,
            init: Some(Init::Program("/sbin/init".into())),
            hostname: Some("box".into()),
            network: NetworkOptions { name_servers, ..NetworkOptions::default() },
            time_scale: 8,
        }
    );
}

#[test]
fn nonsense_falls_back() {
    let options =
        BootOptions::parse("riad.timescale=no riad.init= riad.root=/dev/a riad.root=/dev/b");
    assert_eq!((options.time_scale, options.init, options.root.as_str()), (1, None, "/dev/b"));
    assert_eq!(BootOptions::parse("riad.timescale=0").time_scale, 1);
    assert_eq!(BootOptions::parse("").root, "/dev/vda");
}

#[test]
fn the_images_own_init_is_asked_for_by_auto() {
    assert_eq!(BootOptions::parse("riad.init=auto").init, Some(Init::Own));
}
