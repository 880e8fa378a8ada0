use std::time::Instant;

use super::{Gauges, Vitals, bytes};

#[test]
fn a_process_without_a_machine_measures_itself() {
    let vitals = Gauges::open(Instant::now()).read(None);
    assert!(vitals.resident_bytes > 0, "{vitals:?}");
    assert!(vitals.resident_most_bytes >= vitals.resident_bytes, "{vitals:?}");
    assert!(vitals.cpu_ns > 0 && vitals.at_ns > 0, "{vitals:?}");
    assert!(vitals.vcpu_ns.is_empty() && vitals.disks.is_empty(), "{vitals:?}");
    let text = serde_json::to_string(&vitals).unwrap();
    assert_eq!(serde_json::from_str::<Vitals>(&text).unwrap(), vitals);
}

#[test]
fn fields_that_are_not_there_are_zero() {
    assert_eq!(bytes("VmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n", "VmRSS:"), 1 << 20);
    assert_eq!(bytes("VmRSS:\tmuch\n", "VmRSS:"), 0);
    assert_eq!(bytes("", "VmRSS:"), 0);
}
