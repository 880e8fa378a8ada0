//! The case of a number.

use crate::Target;
use crate::mutate::mutate;
use crate::random::Random;

/// Makes cases of one target.
pub struct Cases {
    target: &'static Target,
    seeds: Vec<Vec<u8>>,
    seed: u64,
}

impl Cases {
    /// The cases of `target` from `seed` on.
    #[must_use]
    pub fn new(target: &'static Target, seed: u64) -> Self {
        // Each target gets other numbers.
        let salt = target
            .name
            .bytes()
            .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Self { target, seeds: (target.seeds)(), seed: salt }
    }

    /// Case `number`: the seeds as they are come first.
    #[must_use]
    pub fn case(&self, number: u64) -> Vec<u8> {
        let whole = usize::try_from(number).ok().and_then(|number| self.seeds.get(number));
        if let Some(seed) = whole {
            return seed.clone();
        }
        let mut random = Random::new(self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kind = random.below(16);
        let generated = self.target.generate.map(|generate| generate(&mut random));
        let mut bytes = match (generated, random.pick(&self.seeds)) {
            // As it was generated.
            (Some(generated), _) if kind < 8 => return generated,
            (Some(generated), _) if kind < 12 => generated,
            (_, Some(seed)) if kind < 15 => seed.clone(),
            (_, _) => {
                let len = random.below(512);
                random.bytes(len)
            }
        };
        mutate(&mut bytes, self.target.words, &self.seeds, &mut random);
        bytes
    }
}
