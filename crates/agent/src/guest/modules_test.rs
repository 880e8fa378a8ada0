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
