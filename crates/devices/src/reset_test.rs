use super::*;
use crate::test_bench::PowerLog;

#[test]
fn the_rising_bit_resets_once() {
    let log = PowerLog::new();
    let mut port = ResetPort::new(log.clone());
    port.port_write(0xcf9, &[0x02]);
    assert_eq!(log.take(), []);
    port.port_write(0xcf9, &[0x06]);
    port.port_write(0xcf9, &[0x06]);
    assert_eq!(log.take(), [PowerEvent::Reset]);

    let mut again = ResetPort::restore(port.save(), log.clone());
    again.port_write(0xcf9, &[0x06]);
    assert_eq!(log.take(), []);
    let mut data = [0];
    again.port_read(0xcf9, &mut data);
    assert_eq!(data, [0x06]);
}

#[test]
fn acpi_reset_value_resets() {
    let log = PowerLog::new();
    ResetPort::new(log.clone()).port_write(0xcf9, &[ResetPort::ACPI_RESET_VALUE]);
    assert_eq!(log.take(), [PowerEvent::Reset]);
}
