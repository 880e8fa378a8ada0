use super::{cannot_create, cannot_open};

#[test]
fn each_refusal_says_what_to_do() {
    for (errno, wanted) in [
        (libc::ENOENT, "firmware"),
        (libc::EACCES, "usermod -aG kvm"),
        (libc::EPERM, "--device /dev/kvm"),
        (libc::EMFILE, "ulimit -n"),
        (libc::EIO, "--engine soft"),
    ] {
        let said = cannot_open(errno);
        assert!(said.contains(wanted), "{errno}: {said}");
    }
    assert!(cannot_create(libc::EBUSY).contains("VirtualBox"));
    assert!(cannot_create(libc::ENOMEM).contains("memory"));
}
