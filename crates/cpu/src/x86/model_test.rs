use super::crystal_ratio;

#[test]
fn the_counters_frequency_is_told_to_within_a_millionth() {
    for khz in [1_000_000, 2_500_000, 2_499_998, 2_494_140, 3_599_997, 1_896_003, 4_700_123] {
        let (n, d) = crystal_ratio(khz);
        assert!(n < 4096 && d > 0);
        let told = f64::from(n) / f64::from(d) * 1e6;
        let off = (told / f64::from(khz) - 1.0).abs();
        assert!(off < 1e-6, "{khz}: {n}/{d} is {off:e} off");
    }
    assert_eq!(crystal_ratio(1_000_000), (1, 1));
    assert_eq!(crystal_ratio(2_500_000), (5, 2));
}
