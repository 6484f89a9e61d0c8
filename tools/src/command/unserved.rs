//! What a change gives copies to and does not serve: said before it is made.

use std::collections::BTreeMap;

use deadwax_dht::wire::{ForecastReport, VolumeState, VolumeStatus};
use deadwax_dht::{Failure, Map, Node, NodeId, VolumeShare};
use deadwax_dht_client::Client;
use tokio::task::JoinSet;

use crate::table::short;

/// The most sentences; beyond, the others are counted.
const SENTENCES_MAX: usize = 32;

/// One sentence on each node and each drive that gets copies by `forecast` and is not known to serve. `returning`: nodes as they
/// were, of which some may not be in `map` now.
pub(super) async fn warnings(client: &Client, map: &Map, returning: &[Node], forecast: &ForecastReport) -> Vec<String> {
    let mut coming: BTreeMap<NodeId, Vec<VolumeShare>> = BTreeMap::new();
    for share in forecast.shares.iter().filter(|share| share.copies_after > share.copies_before) {
        coming.entry(share.node).or_default().push(share.clone());
    }
    let mut asking = JoinSet::new();
    for node in coming.keys().filter(|node| map.node(node).is_some()).copied() {
        let client = client.clone();
        asking.spawn(async move { (node, client.volumes_of(&node).await) });
    }
    let answers: BTreeMap<NodeId, _> = asking.join_all().await.into_iter().collect();
    let address = |id: &NodeId| {
        let node = map.node(id).or_else(|| returning.iter().find(|node| node.id == *id));
        node.map_or_else(|| short(id), |node| node.address.clone())
    };
    let mut said: Vec<String> =
        coming.iter().flat_map(|(node, shares)| of_node(&address(node), shares, answers.get(node))).collect();
    if said.len() > SENTENCES_MAX {
        let more = said.len() - SENTENCES_MAX;
        said.truncate(SENTENCES_MAX);
        said.push(format!("and {more} more nodes and volumes that are not known to serve"));
    }
    said
}

/// What there is to say of a node; `answer` is its own word, none where it is not in the map.
fn of_node(address: &str, shares: &[VolumeShare], answer: Option<&Result<Vec<VolumeStatus>, Failure>>) -> Vec<String> {
    let copies = |shares: &[VolumeShare]| {
        let copies: u64 = shares.iter().map(|share| u64::from(share.copies_after - share.copies_before)).sum();
        format!("{copies} copies are to come to it, and wait until it serves")
    };
    let volumes = match answer {
        None => {
            let copies = copies(shares);
            return vec![format!(
                "node {address} comes back, and is not in the map now: {copies} (start it; where it \
                 refuses to, it says what to do)"
            )];
        }
        Some(Err(why)) => return vec![format!("node {address} does not answer ({why}): {}", copies(shares))],
        Some(Ok(volumes)) => volumes,
    };
    let of_volume = |share: &VolumeShare| {
        let copies = copies(std::slice::from_ref(share));
        let id = short(&share.volume);
        let Some(status) = volumes.iter().find(|status| status.id == share.volume) else {
            return Some(format!(
                "node {address} does not have volume {id} open: {copies} (`volumes` in its settings names its directory, \
                 and SIGHUP opens it)"
            ));
        };
        let state = match status.state {
            VolumeState::Serving => return None,
            VolumeState::ReadOnly => "read-only",
            VolumeState::Fenced => "fenced",
        };
        let why = status.reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
        Some(format!("volume {id} of node {address} is {state}{why}: {copies}"))
    };
    shares.iter().filter_map(of_volume).collect()
}

#[cfg(test)]
mod tests {
    use deadwax_dht::{FailureKind, VolumeId};

    use super::*;

    #[test]
    fn what_is_not_known_to_serve_is_named_and_what_serves_is_not() {
        let share = |number: u8, copies_after| VolumeShare {
            volume: VolumeId::from_bytes([number; 16]),
            node: NodeId::from_bytes([9; 32]),
            copies_before: 10,
            copies_after,
            bytes_before: 0,
            bytes_after: 0,
            bytes_arriving: 0,
            fullness_ppm: 1_000_000,
        };
        let status = |number: u8, state, reason: Option<&str>| VolumeStatus {
            id: VolumeId::from_bytes([number; 16]),
            dir: "/mnt/a".to_owned(),
            capacity_bytes: 0,
            free_bytes: 0,
            tracks: 0,
            track_bytes: 0,
            record_bytes: 0,
            takedowns: 0,
            state,
            reason: reason.map(str::to_owned),
        };
        let shares = [share(1, 30), share(2, 15), share(3, 12)];
        let said = |answer: Option<Result<Vec<VolumeStatus>, Failure>>| of_node("a:1", &shares, answer.as_ref());
        let gone = said(None);
        assert!(
            matches!(&gone[..], [one] if one.starts_with("node a:1 comes back, and is not in the map now: 27 copies are to")),
            "{gone:?}"
        );
        let down = Failure::new(FailureKind::Unreachable, "nobody listens");
        let down = said(Some(Err(down)));
        assert!(matches!(&down[..], [one] if one.contains("does not answer") && one.contains("27 copies")), "{down:?}");
        let volumes =
            vec![status(1, VolumeState::Serving, None), status(2, VolumeState::Fenced, Some("its drive hangs"))];
        let some = said(Some(Ok(volumes)));
        assert_eq!(some.len(), 2, "{some:?}");
        assert!(some[0].starts_with("volume 02020202 of node a:1 is fenced (its drive hangs): 5 copies"), "{some:?}");
        assert!(some[1].starts_with("node a:1 does not have volume 03030303 open: 2 copies"), "{some:?}");
    }
}
