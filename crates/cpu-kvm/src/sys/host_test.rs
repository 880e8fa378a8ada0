//! Refusals of the host's, by the host where it can be brought to refuse, and what each says to do.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use kvm_ioctls::Cap;

use super::{
    API_VERSION, NEEDED, cannot_create, cannot_open, created, enough_processors, open_at, will_do,
};

fn said<T>(result: Result<T, riad_cpu::Error>) -> String {
    result.err().expect("a refusal").to_string()
}

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

#[test]
fn no_device_is_refused_by_the_kernel() {
    let said = said(open_at(c"/dev/null/kvm"));
    assert!(said.contains("--engine soft"), "{said}");
    let said = self::said(open_at(c"/dev/there-is-no-kvm"));
    assert!(said.contains("nested virtualisation") && said.contains("--engine soft"), "{said}");
}

#[test]
fn a_device_that_this_user_may_not_open_is_refused_by_the_kernel() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::set_permissions(file.path(), Permissions::from_mode(0o000)).expect("nobody's");
    let path = CString::new(file.path().as_os_str().as_encoded_bytes()).expect("a path");
    // As a user who is nobody, where this one may do everything: that is one thread's affair.
    let thread = std::thread::spawn(move || {
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534))
            .or_else(|error| if rustix::process::geteuid().is_root() { Err(error) } else { Ok(()) })
            .expect("another user");
        open_at(&path).map(drop)
    });
    let said = said(thread.join().expect("an answer"));
    assert!(said.contains("you may not use /dev/kvm"), "{said}");
    assert!(said.contains("usermod -aG kvm") && said.contains("--engine soft"), "{said}");
}

#[test]
fn a_device_that_is_not_kvm_is_refused_by_the_kernel() {
    let said = said(open_at(c"/dev/null"));
    assert!(said.contains("not the kernel's KVM device"), "{said}");
}

#[test]
fn another_version_and_missing_capabilities_are_refused() {
    let said = said(will_do(11, |_| true));
    assert!(said.contains("version 11") && said.contains("--engine soft"), "{said}");
    assert!(will_do(API_VERSION, |_| true).is_ok());
    for (lacking, name) in NEEDED {
        let said = self::said(will_do(API_VERSION, |cap| cap as u32 != lacking as u32));
        assert!(said.contains(&format!("lacks {name};")), "{said}");
        assert!(said.contains("Linux 4.20") && said.contains("--engine soft"), "{said}");
    }
    let said = self::said(will_do(API_VERSION, |cap| {
        !matches!(cap, Cap::SplitIrqchip | Cap::ImmediateExit)
    }));
    assert!(said.contains("interrupt controllers, immediate exits;"), "{said}");
}

#[test]
fn a_busy_processor_is_refused_and_an_interrupted_request_made_again() {
    let busy = || Err::<(), _>(kvm_ioctls::Error::new(libc::EBUSY));
    let said = said(created(busy));
    assert!(said.contains("VirtualBox") && said.contains("--engine soft"), "{said}");
    let mut asked = 0;
    let answer = created(|| {
        asked += 1;
        if asked < 3 { Err(kvm_ioctls::Error::new(libc::EINTR)) } else { Ok(asked) }
    });
    assert_eq!(answer.expect("a machine"), 3);
}

#[test]
fn more_processors_than_kvm_gives_are_refused() {
    assert!(enough_processors(8, 8).is_ok());
    let said = said(enough_processors(9, 8));
    assert!(said.contains("--cpus 8") && said.contains("--engine soft"), "{said}");
}
