use super::crystal_ratio;

#[test]
fn the_counters_frequency_is_told_as_the_closest_fraction() {
    for khz in
        [1_000_000, 2_500_000, 2_499_998, 2_494_140, 3_599_997, 1_896_003, 4_700_123, 1_000_120]
    {
        let (n, d) = crystal_ratio(khz);
        assert!(n < 4096 && d > 0);
        let told = f64::from(n) / f64::from(d) * 1e6;
        let off = (told / f64::from(khz) - 1.0).abs();
        let best = (1..4096u32)
            .flat_map(|n| {
                let d = (f64::from(n) * 1e6 / f64::from(khz)).floor() as u32;
                [(n, d.max(1)), (n, d + 1)]
            })
            .map(|(n, d)| (f64::from(n) / f64::from(d) * 1e6 / f64::from(khz) - 1.0).abs())
            .fold(f64::MAX, f64::min);
        assert!(off <= best + 1e-11, "{khz}: {n}/{d} is {off:e} off, and {best:e} is possible");
    }
    assert_eq!(crystal_ratio(1_000_000), (1, 1));
    assert_eq!(crystal_ratio(2_500_000), (5, 2));
}
