use super::is_listening;

/// Lines as Linux 6.12 writes them.
#[test]
fn listeners_are_found_in_what_the_kernel_says() {
    let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid";
    let any = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0";
    let loopback = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000";
    let talking = "   2: 022FD50A:1F90 0100000A:A2B0 01 00000000:00000000 00:00000000 00000000";
    let any6 =
        "   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0:0";
    let loopback6 =
        "   0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 0A 0:0";
    assert!(is_listening(any, 8080) && is_listening(any6, 22));
    for (line, port) in [(any, 80), (head, 8080), (loopback, 8080), (talking, 8080), ("", 0)] {
        assert!(!is_listening(line, port), "{line}");
    }
    assert!(!is_listening(loopback6, 22));
}
