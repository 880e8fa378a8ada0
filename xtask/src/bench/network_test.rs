use super::*;

#[test]
fn options_are_read() {
    let options = Options::parse(&["--rounds", "1", "--skip-passt", "--engine", "kvm"]).unwrap();
    assert_eq!((options.rounds, options.engine.as_str()), (1, "kvm"));
    assert!(options.skip_passt && !options.skip_qemu);
    for words in [&["--rounds"][..], &["--rounds", "many"], &["fast"]] {
        assert!(Options::parse(words).is_err(), "{words:?}");
    }
}

#[test]
fn rows_are_rates_and_how_many_times_the_others() {
    let line = row("send", 2.0, "Gbit/s", [Some(1.0), Some(4.0), None]);
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words, ["send", "2.00", "Gbit/s", "0.50", "Gbit/s", "-", "4.00", "-"]);
}

#[test]
fn the_server_takes_gives_and_answers() {
    let port = serve().unwrap();
    let call = |what: u8, len: u64| {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.write_all(&[what]).unwrap();
        stream.write_all(&len.to_le_bytes()).unwrap();
        stream
    };
    let mut all = Vec::new();
    call(b'g', 300_000).read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 300_000);
    let mut stream = call(b't', 300_000);
    stream.write_all(&all).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let mut stream = call(b'e', 0);
    stream.write_all(b"back").unwrap();
    let mut back = [0; 4];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"back");
}
