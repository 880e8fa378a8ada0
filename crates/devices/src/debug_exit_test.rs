use super::*;
use crate::test_bench::PowerLog;

#[test]
fn status_is_twice_the_value_plus_one() {
    let log = PowerLog::new();
    let mut exit = DebugExit::new(log.clone());
    exit.port_write(0, &[0x10]);
    exit.port_write(0, &[0x10, 0, 0, 0]);
    exit.port_write(0, &[0xff, 0xff, 0xff, 0xff]);
    let codes = [0x21, 0x21, 0xffff_ffff].map(|code| PowerEvent::DebugExit { code });
    assert_eq!(log.take(), codes);
    let mut data = [1; 4];
    exit.port_read(0, &mut data);
    assert_eq!(data, [0; 4]);
}
