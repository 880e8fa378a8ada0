use super::section;

#[test]
fn the_section_leads_to_the_forward() {
    let text = section(&"dev".parse().unwrap(), "tester", "0.0.0.0:2222".parse().unwrap());
    assert!(text.starts_with("Host dev\n  HostName 127.0.0.1\n  Port 2222\n"), "{text}");
    // Whose name it is there, not here.
    assert!(text.contains("  User tester\n"), "{text}");
    let text = section(&"dev".parse().unwrap(), "root", "[::1]:22".parse().unwrap());
    assert!(text.contains("HostName ::1\n  Port 22\n"), "{text}");
}
