//! The power goes, ten thousand times.

use super::world::{Tally, World};
use super::{Options, tiny};

const LIVES_PER_SEED: u64 = 12;

/// Lives through cuts until `cuts` were met; stops at the first thing that is wrong.
fn campaign(first_seed: u64, cuts: u64, options: &Options) -> Result<Tally, String> {
    let mut sum = Tally::default();
    for seed in first_seed.. {
        let batch_bytes_max = [1 << 10, 4 << 10, 10 << 10][(seed % 3) as usize];
        let segments_reserved = 1 + (seed % 4) as usize / 2;
        let options = Options { batch_bytes_max, segments_reserved, ..options.clone() };
        let mut world = World::new(seed, options);
        for life in 0..LIVES_PER_SEED {
            world.live().map_err(|wrong| format!("seed {seed}, life {life}: {wrong}"))?;
        }
        sum.add(&world.tally);
        if sum.cuts >= cuts {
            break;
        }
    }
    Ok(sum)
}

#[track_caller]
fn holds(first_seed: u64) {
    match campaign(first_seed, 5_000, &tiny()) {
        Err(wrong) => panic!("{wrong}"),
        Ok(met) => {
            println!("{met:?}");
            // A campaign that never met these would prove nothing.
            assert!(met.cuts >= 5_000 && met.ways.len() == 6, "{met:?}");
            for (what, count, at_least) in [
                ("kills", met.kills, 20),
                ("cuts while opening", met.cuts_while_opening, 100),
                ("tears inside a batch", met.tears, 300),
                ("segments to be used again", met.recycled, 500),
                ("found though not acknowledged", met.unacked_found, 1_000),
                ("gone", met.unacked_gone, 10_000),
                ("segments deleted", met.segments_deleted, 1_000),
                ("damage told", met.damage_told, 2_000),
                ("rot in the last batch", met.last_batch_rotten, 200),
                ("installs", met.installs, 500),
                ("removals", met.removals, 500),
            ] {
                assert!(count >= at_least, "{what}: {count}");
            }
            // An append of four large entries alone takes four segments here, and a group with a snapshot
            // on its way cannot purge.
            assert!(met.sealed_max < 50, "{met:?}");
        }
    }
}

#[test]
fn no_cut_loses_what_was_acknowledged_or_brings_back_what_was_not_there() {
    holds(1);
}

#[test]
fn nor_in_another_five_thousand() {
    holds(1_000_000);
}

#[cfg(debug_assertions)]
#[test]
fn acknowledging_before_the_fsync_is_caught() {
    let planted = Options { ack_before_fsync: true, ..tiny() };
    let caught = (0..20).filter(|seed| campaign(1_000 * seed + 7, 100, &planted).is_err()).count();
    assert!(caught >= 18, "the planted loss was seen in {caught} of 20 runs of 100 cuts");
}
