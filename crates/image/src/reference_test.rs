use super::*;

#[test]
fn names_are_read_and_shown() {
    for (text, shown) in [
        ("debian", "debian"),
        ("debian:trixie", "debian:trixie"),
        ("debian:12", "debian:bookworm"),
        ("debian:13", "debian:trixie"),
        ("my-image_1.0", "my-image_1.0"),
    ] {
        let reference: ImageRef = text.parse().expect(text);
        assert_eq!(reference.to_string(), shown);
    }
}

#[test]
fn what_is_no_name_is_refused_with_advice() {
    let error = |text: &str| text.parse::<ImageRef>().expect_err(text).to_string();
    assert!(error("debian:warty").contains("trixie (13)"));
    assert!(error("ubuntu:22.04").contains("riad image ls"));
    for bad in ["", "../x", "a/b", "A", "-x", ".x", "x y", &"x".repeat(65)] {
        assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
    }
}
