use super::*;

fn two_regions() -> GuestMemory {
    GuestMemory::new(&[(Gpa(0), 0x4000), (Gpa(0x10000), 0x2000)]).unwrap()
}

#[test]
fn copies_land_where_they_are_sent() {
    let ram = two_regions();
    ram.write(Gpa(0x3ffe), &[1, 2]).unwrap();
    ram.write(Gpa(0x10000), &[3]).unwrap();
    let mut buf = [0; 2];
    ram.read(Gpa(0x3ffe), &mut buf).unwrap();
    assert_eq!(buf, [1, 2]);
    assert_eq!(ram.read_vec(Gpa(0x10000), 1).unwrap(), [3]);
    ram.write_u32(Gpa(0x11), 0xdead_beef).unwrap();
    assert_eq!(ram.read_u32(Gpa(0x11)).unwrap(), 0xdead_beef);
    assert_eq!(ram.read_u16(Gpa(0x13)).unwrap(), 0xdead);
}

#[test]
fn nothing_outside_ram_can_be_reached() {
    let ram = two_regions();
    for (at, len) in
        [(0x3fff, 2), (0x4000, 1), (0xffff, 1), (0x12000, 1), (u64::MAX, 2), (0, 0x4001)]
    {
        assert!(ram.read_vec(Gpa(at), len).is_err(), "{at:#x}+{len}");
        assert!(ram.write(Gpa(at), &vec![0; len]).is_err(), "{at:#x}+{len}");
    }
    assert!(ram.page(Gpa(0x4000)).is_none());
    assert!(ram.page(Gpa(0x11fff)).is_some());
}

/// What runs off an end of RAM by some mistake meets no other memory of the process.
#[cfg(target_os = "linux")]
#[test]
fn ram_lies_between_guards() {
    let ram = two_regions();
    let first = ram.page(Gpa(0)).unwrap().host.addr();
    let end = first + 0x6000;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let rights = |at: usize| {
        maps.lines().find_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let number = |text| usize::from_str_radix(text, 16).ok();
            (number(from)?..number(to)?).contains(&at).then(|| rest[..3].to_owned())
        })
    };
    assert_eq!(rights(first).as_deref(), Some("rw-"));
    assert_eq!(rights(end - 1).as_deref(), Some("rw-"));
    let guard = crate::sys::GUARD;
    for outside in [first - guard, first - 1, end, end + guard - 1] {
        assert_eq!(rights(outside).as_deref(), Some("---"), "{outside:#x}");
    }
}

#[test]
fn writes_are_dirty_and_end_decoded_code() {
    let ram = two_regions();
    let page = ram.page(Gpa(0x10000)).unwrap().index;
    let seen = ram.pages().mark_code(page, || {});
    assert_eq!(ram.pages().generation(page), seen);
    ram.write(Gpa(0x10010), &[1]).unwrap();
    assert_ne!(ram.pages().generation(page), seen);
    assert_eq!(ram.pages().take_dirty(), vec![page]);
    assert!(ram.pages().take_dirty().is_empty());
}

#[test]
fn bad_regions_are_refused() {
    assert!(GuestMemory::new(&[(Gpa(1), 0x1000)]).is_err());
    assert!(GuestMemory::new(&[(Gpa(0), 0)]).is_err());
    assert!(GuestMemory::new(&[(Gpa(0), 0x2000), (Gpa(0x1000), 0x1000)]).is_err());
    assert!(GuestMemory::new(&[(Gpa(0), !0xfff)]).is_err());
}
