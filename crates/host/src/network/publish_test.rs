use super::*;

#[test]
fn what_is_left_out_is_tcp_on_this_computer() {
    for (text, whole) in [
        ("8080:80", "tcp:127.0.0.1:8080:80"),
        ("tcp:8080:80", "tcp:127.0.0.1:8080:80"),
        ("udp:5353:53", "udp:127.0.0.1:5353:53"),
        ("0.0.0.0:8080:80", "tcp:0.0.0.0:8080:80"),
        ("tcp:[::1]:8080:80", "tcp:[::1]:8080:80"),
        ("udp:0:53", "udp:127.0.0.1:0:53"),
        ("unix:/run/a:b.sock:80", "unix:/run/a:b.sock:80"),
    ] {
        let publish: Publish = text.parse().unwrap();
        assert_eq!(publish.to_string(), whole);
        assert_eq!(whole.parse::<Publish>().unwrap(), publish);
    }
}

#[test]
fn what_is_no_forward_is_told_how_to_write_one() {
    for text in [
        "",
        "80",
        "8080:",
        ":80",
        "8080:0",
        "8080:65536",
        "65536:80",
        "sctp:8080:80",
        "name:8080:80",
        "unix:web.sock:80",
        "unix:/run/web.sock",
        "tcp:8080:80:90",
        "tcp:::80",
    ] {
        let error = text.parse::<Publish>().unwrap_err();
        assert!(error.contains("as in tcp:8080:80"), "{text}: {error}");
    }
}

#[test]
fn a_forward_is_called_by_where_it_listens() {
    let publish: Publish = "tcp:8080:80".parse().unwrap();
    for word in ["8080", "tcp:8080", "tcp:127.0.0.1:8080", "127.0.0.1:8080", "tcp:8080:80"] {
        assert!(publish.is_called(word), "{word}");
    }
    for word in ["80", "8081", "udp:8080", "0.0.0.0:8080", "tcp:8080:81", ""] {
        assert!(!publish.is_called(word), "{word}");
    }
}
