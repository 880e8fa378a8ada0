use super::*;
use crate::pc::map::{AddressMap, GIB};

fn placer(memory: u64) -> Placer {
    Placer::new(&AddressMap::new(memory).unwrap().e820(), memory)
}

#[test]
fn tables_are_small_and_low_and_apart() {
    let mut placer = placer(16 * MIB);
    assert_eq!(placer.table("t", 100).unwrap(), Gpa(SMALL_TABLES));
    assert_eq!(placer.table("t", 1).unwrap(), Gpa(SMALL_TABLES + 112));
    let large = placer.table("t", 0x9_8000).unwrap();
    assert!(large >= HIGH_MEMORY, "what does not fit below 640 KiB goes above 1 MiB");
}

#[test]
fn tables_avoid_a_low_kernel() {
    let mut placer = placer(16 * MIB);
    placer.claim("k", 0x8000, 0x2000).unwrap();
    assert_eq!(placer.table("t", 16).unwrap(), Gpa(0xa000));
}

#[test]
fn high_is_high_but_below_the_limit_and_the_hole() {
    assert_eq!(placer(16 * MIB).high("i", 0x1001, u64::MAX).unwrap(), Gpa(16 * MIB - 0x2000));
    assert_eq!(placer(16 * MIB).high("i", 0x1000, 0x80_0000).unwrap(), Gpa(0x7f_f000));
    assert_eq!(placer(8 * GIB).high("i", 0x1000, u64::MAX).unwrap(), Gpa(3 * GIB - 0x1000));
    let mut full = placer(16 * MIB);
    full.claim("k", 0x10_0000, 14 * MIB).unwrap();
    let error = full.high("i", 3 * MIB, u64::MAX).unwrap_err();
    assert!(matches!(error, BootError::NoRoom { need: 18, have: 16, .. }), "{error}");
    assert_eq!(full.high("i", 0x1000, u64::MAX).unwrap(), Gpa(16 * MIB - 0x1000));
}

#[test]
fn above_is_the_next_free_page() {
    let mut placer = placer(16 * MIB);
    placer.claim("k", 0x10_0000, 0x1234).unwrap();
    assert_eq!(placer.above("m", 5, 0x10_1234).unwrap(), Gpa(0x10_2000));
    assert_eq!(placer.above("m", 5, 0x10_1234).unwrap(), Gpa(0x10_3000));
}

#[test]
fn claims_say_what_is_wrong() {
    let mut placer = placer(8 * MIB);
    let error = placer.claim("the kernel", 0x100_0000, 0x338_0000).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel needs memory up to 68 MiB, and the machine has 8 MiB: give it more with --memory"
    );
    placer.claim("k", 0x10_0000, 0x1000).unwrap();
    for (start, len) in
        [(0x10_0fff, 1), (0xa_0000, 1), (0xc000_0000, 1), (u64::MAX, 2), (1 << 40, 1)]
    {
        assert!(
            matches!(placer.claim("k", start, len), Err(BootError::BadAddress { .. })),
            "{start:#x}"
        );
    }
}
