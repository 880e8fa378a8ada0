use super::*;
use crate::link::MAX_FRAME;

const MAC: Mac = [0x52, 0x54, 0, 0, 0, 1];

#[test]
fn names_that_no_interface_has_are_refused() {
    for bad in ["", "a name", "a/b", "tap%d", ".", "..", "a-name-that-is-too-long"] {
        let error = Tap::open(bad, MAC).unwrap_err();
        assert!(matches!(error, TapError::Name(_)), "{bad}: {error}");
        assert!(Tap::on_bridge(bad, MAC).is_err());
    }
}

/// Whether this process may make interfaces here; says so when not.
fn may(result: Result<Tap, TapError>) -> Option<Tap> {
    match result {
        Ok(tap) => Some(tap),
        Err(error @ (TapError::NoTun(_) | TapError::Right { .. })) => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Everything that needs rights, in one test: they are seldom there.
#[test]
fn a_tap_device_carries_frames() {
    let name = format!("riadt{}", std::process::id() % 100_000);
    let Some(mut tap) = may(Tap::open(&name, MAC)) else { return };
    assert_eq!((tap.name(), tap.mac(), tap.mtu()), (name.as_str(), MAC, 1500));
    assert!(matches!(Tap::open(&name, MAC), Err(TapError::Busy(_))));
    let everything = Accepts { checksum: true, tcp4: true, tcp6: true, ecn: true, udp: false };
    tap.accepts(everything);
    assert_eq!(tap.accepts, everything);
    // The kernel announces itself on a new interface (IPv6 neighbour and listener discovery).
    let mut room = vec![0; MAX_FRAME];
    let until = crate::link::now() + Duration::from_secs(5);
    let came = loop {
        tap.turn(crate::link::now());
        if let Some((offload, len)) = tap.receive(&mut room) {
            break Some((offload, len));
        }
        if crate::link::now() > until {
            break None;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    match came {
        Some((offload, len)) => assert!(len >= 14 && offload.fits(len)),
        None => println!("skipped: this host's kernel says nothing on a new interface"),
    }
    tap.send(&Offload::default(), &[0xff; 60]);
    assert!(tap.up());

    let error = Tap::on_bridge("lo", MAC).unwrap_err();
    assert!(matches!(error, TapError::NoBridge(_)), "{error}");
    let error = Tap::on_bridge("riad-none", MAC).unwrap_err();
    assert!(matches!(error, TapError::NoBridge(_)), "{error}");
}
