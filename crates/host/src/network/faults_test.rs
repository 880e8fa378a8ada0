use super::*;

#[test]
fn units_are_read_and_written() {
    for (text, micros) in [("50ms", 50_000), ("0.5ms", 500), ("1s", 1_000_000), ("0us", 0)] {
        assert_eq!(parse_time(text), Ok(micros), "{text}");
    }
    for (text, ppm) in [("2%", 20_000), ("0.5%", 5_000), ("100%", 1_000_000), ("0.0001%", 1)] {
        assert_eq!(parse_loss(text), Ok(ppm), "{text}");
    }
    for (text, bits) in [("10mbit", 10_000_000), ("1.5Gbit", 1_500_000_000), ("64kbit", 64_000)] {
        assert_eq!(parse_rate(text), Ok(bits), "{text}");
    }
    let faults = CableFaults {
        delay_us: 50_000,
        jitter_us: 1_500,
        loss_ppm: 5_000,
        rate_bits: 1_500_000_000,
        cut: true,
    };
    assert_eq!(faults.to_string(), "delay 50ms, jitter 1500us, loss 0.5%, rate 1500mbit, cut");
    assert_eq!(CableFaults::default().to_string(), "none");
    let Faults { delay, jitter, loss, rate, cut } = faults.into();
    assert_eq!((delay, jitter), (Duration::from_millis(50), Duration::from_micros(1500)));
    assert_eq!((loss, rate, cut), (5_000, 187_500_000, true));
}

#[test]
fn what_has_no_unit_or_no_sense_is_told_what_to_write() {
    for wrong in ["", "50", "ms", "-5ms", "5 ms", "5min", "1.2.3ms", "61s", "nanms", "1e9s", "é"] {
        let error = parse_time(wrong).unwrap_err();
        assert!(error.contains("50ms") || error.contains("60s at most"), "{wrong}: {error}");
    }
    for wrong in ["", "2", "0.02", "101%", "-1%", "%", "2%%", "2 %"] {
        assert!(parse_loss(wrong).unwrap_err().contains("as in 2%"), "{wrong}");
    }
    for wrong in ["", "10", "10m", "10mbps", "mbit", "10mb"] {
        assert!(parse_rate(wrong).unwrap_err().contains("as in 10mbit"), "{wrong}");
    }
    for wrong in ["1bit", "0kbit", "101gbit"] {
        assert!(parse_rate(wrong).unwrap_err().contains("1kbit to 100gbit"), "{wrong}");
    }
}

#[test]
fn faults_are_kept_by_their_names() {
    let text = r#"{"delay_us":5,"later":1}"#;
    let faults: CableFaults = serde_json::from_str(text).unwrap();
    assert_eq!(faults, CableFaults { delay_us: 5, ..CableFaults::default() });
}
