use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn behaves_as_a_list_of_bools(
        len in 1u64..300,
        sets in prop::collection::vec((0u64..300, 0u64..300), 0..6),
        (a, b) in (0u64..300, 0u64..300),
    ) {
        let mut map = Bitmap::new(len).unwrap();
        let mut model = vec![false; len as usize];
        for (a, b) in sets {
            let range = a.min(b).min(len)..a.max(b).min(len);
            map.set(range.clone());
            model[range.start as usize..range.end as usize].fill(true);
        }
        prop_assert_eq!(map.count(), model.iter().filter(|&&bit| bit).count() as u64);
        let range = a.min(b).min(len)..a.max(b).min(len);
        let part = &model[range.start as usize..range.end as usize];
        prop_assert_eq!(map.all(range.clone()), part.iter().all(|&bit| bit));
        let runs: Vec<Run> = map.runs(range.clone()).collect();
        prop_assert!(runs.windows(2).all(|pair| pair[0].is_set != pair[1].is_set));
        let bits: Vec<bool> =
            runs.iter().flat_map(|run| run.clusters.clone().map(|_| run.is_set)).collect();
        prop_assert_eq!(bits, part.to_vec());
    }
}
