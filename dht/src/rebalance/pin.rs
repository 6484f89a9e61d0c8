//! Another map by which no partition moves.

use deadwax_track::Partition;

use crate::map::{VolumeLists, check};
use crate::placement::{GONE, Step};
use crate::{BadMap, Map, MapSpec, Override, VolumeId};

/// `proposed` with the overrides by which every partition keeps the holders that it has in `before`, and no others:
/// where rendezvous over the proposed volumes gives the same ones there is none. The overrides of `proposed` do not
/// count.
///
/// Takes milliseconds if the holders of `before` are all known (it came out of a plan, or was asked before), unless
/// zones take another number of copies than they did; else as long as placing all partitions.
///
/// # Errors
/// What is wrong with `proposed`, as [`Map::new`] says it. [`BadMap::OverrideVolume`] where a volume that holds
/// something is to go: move its partitions first. [`BadMap::OverrideCount`] where partitions would have another number
/// of copies: pins cannot hold that.
pub fn pin(before: &Map, proposed: MapSpec) -> Result<MapSpec, BadMap> {
    pinned(before, proposed).map(|map| map.spec().clone())
}

/// The map of what [`pin`] gives, which knows all its holders.
pub(super) fn pinned(before: &Map, proposed: MapSpec) -> Result<Map, BadMap> {
    let mut after = Map::new(MapSpec { overrides: Vec::new(), ..proposed })?;
    let step = Step::new(before, &after);
    let wanted = before.assignment().advance(before, &after, &step);
    let volume = |index: u32| before.roster().volumes()[index as usize].holder().volume;
    let (mut overrides, mut lists, copies) = (Vec::new(), VolumeLists::default(), after.roster().copies());
    for number in 0..=u16::MAX {
        let (held, wanted, partition) = (before.held(number), wanted.holders(number), Partition(number));
        let mut moved = held.len() != wanted.len();
        for &index in held {
            let later = step.index[index as usize];
            if later == GONE {
                return Err(BadMap::OverrideVolume { partition, volume: volume(index) });
            }
            moved |= !wanted.contains(&later);
        }
        if held.len() != copies {
            return Err(BadMap::OverrideCount { partition, got: held.len(), copies });
        }
        if moved {
            let held: Vec<VolumeId> = held.iter().copied().map(volume).collect();
            overrides.push(Override { partition, volumes: lists.one(&held) });
        }
    }
    after.put(overrides);
    after.put_assignment(wanted);
    check(after.spec())?;
    Ok(after)
}
