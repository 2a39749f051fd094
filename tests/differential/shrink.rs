//! The smallest script that still shows a difference, as far as leaving steps out finds it.

use crate::{
    compare::{Difference, compare},
    generate::Script,
    world::World,
};

/// Runs at most.
const TRIES: usize = 300;

pub fn shrink(
    world: &mut World,
    mut script: Script,
    seed: u64,
    mut found: Difference,
) -> (Script, Difference) {
    let mut tries = 0;
    let mut size = script.steps.len() / 2;
    while size > 0 && tries < TRIES {
        let mut at = 0;
        let mut shorter = false;
        while at < script.steps.len() && tries < TRIES {
            let mut less = script.clone();
            less.steps.drain(at..(at + size).min(less.steps.len()));
            tries += 1;
            match compare(world, &less, seed) {
                Some(difference) => (script, found, shorter) = (less, difference, true),
                None => at += size,
            }
        }
        // Once more with single steps for as long as that helps.
        size = if size == 1 && shorter { 1 } else { size / 2 };
    }
    (script, found)
}
