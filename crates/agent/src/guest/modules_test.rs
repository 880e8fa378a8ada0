use super::*;

#[test]
fn a_list_has_paths_and_parameters() {
    let lines = parse(
        "# for the disk\n/lib/modules/virtio_blk.ko num_request_queues=1  x=2\n\n  \
         lib/modules/vsock.ko.xz\n",
    );
    let line = |path: &str, parameters: &str| ModuleLine {
        path: path.into(),
        parameters: parameters.into(),
    };
    assert_eq!(
        lines,
        [
            line("/lib/modules/virtio_blk.ko", "num_request_queues=1  x=2"),
            line("/lib/modules/vsock.ko.xz", ""),
        ]
    );
    assert!(parse("").is_empty());
}

#[test]
fn what_the_root_and_the_host_are_reached_with_comes_first() {
    let of = |list: &str| needed_first(&parse(list));
    let list = "/m/00-virtio_pci.ko\n/m/01-vsock.ko\n/m/02-vmw_vsock_virtio_transport_common.ko\n\
                /m/03-vmw_vsock_virtio_transport.ko\n/m/04-failover.ko\n/m/05-virtio_net.ko\n";
    assert_eq!(of(list), 4);
    // Built in, or another list: then all are needed.
    assert_eq!(of("/m/00-virtio_blk.ko\n/m/01-virtio_net.ko\n"), 2);
    assert_eq!(of(""), 0);
}
