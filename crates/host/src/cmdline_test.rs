use super::agent_machine;

#[test]
fn what_is_appended_comes_last() {
    let line = agent_machine(10, true, "/dev/vda", Some(" loglevel=7 debug "));
    assert!(line.ends_with(" riad.timescale=10 loglevel=7 debug"), "{line}");
    assert!(line.contains(" quiet loglevel=3 "), "{line}");
}

#[test]
fn a_console_that_is_shown_is_not_quiet() {
    let line = agent_machine(1, false, "/dev/vda2", None);
    assert!(!line.contains("quiet") && line.contains("console=ttyS0"), "{line}");
    assert!(line.contains(" riad.root=/dev/vda2 "), "{line}");
}

#[test]
fn it_fits_every_kernel() {
    // COMMAND_LINE_SIZE is 2048 on x86; half of it is left to the user.
    assert!(agent_machine(u32::MAX, true, "/dev/vda128", None).len() < 1024);
}
