use super::line;

#[test]
fn an_entry_is_one_line_that_drives_no_terminal() {
    let text = r#"{"schema": 1, "at": 5, "time": "2026-11-28T18:24:12.123Z", "machine": "dev",
        "id": "1", "event": "stopping", "message": "stopping\n\u001b[2J", "by": "riad stop"}"#;
    let entry = serde_json::from_str(text).unwrap();
    assert_eq!(line(&entry), "2026-11-28T18:24:12Z  dev           stopping (riad stop)\n");
}
