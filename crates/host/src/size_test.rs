use super::{Size, SizeError};

#[test]
fn units_are_powers_of_1024_in_any_spelling() {
    for (text, bytes) in [
        ("512M", 512 << 20),
        ("512m", 512 << 20),
        ("512MB", 512 << 20),
        ("512MiB", 512 << 20),
        ("2G", 2 << 30),
        ("2 GiB", 2 << 30),
        ("1T", 1 << 40),
        ("64k", 64 << 10),
        ("4096", 4096),
        ("0", 0),
    ] {
        assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
    }
}

#[test]
fn what_is_not_a_size_is_said_to_be_none() {
    for text in ["", "M", "12X", "-1G", "1.5G", "0x10", "G2", "1GG"] {
        assert_eq!(text.parse::<Size>(), Err(SizeError::Malformed(text.to_owned())), "{text}");
    }
}

#[test]
fn sizes_that_cannot_be_counted_are_too_large() {
    for text in ["99999999999999999999", "99999999T"] {
        assert_eq!(text.parse::<Size>(), Err(SizeError::TooLarge(text.to_owned())), "{text}");
    }
}

#[test]
fn sizes_are_written_for_people() {
    for (bytes, text) in
        [(0, "0 B"), (1023, "1023 B"), (1 << 20, "1 MiB"), (3 << 29, "1.5 GiB"), (1 << 33, "8 GiB")]
    {
        assert_eq!(Size(bytes).to_string(), text);
    }
}
