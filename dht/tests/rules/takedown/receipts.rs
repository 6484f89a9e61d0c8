//! Receipts of erased copies.

use deadwax_dht::takedown::{BadReceipt, COPIES_MAX, CopyState, Progress, Receipt, Receipts};
use deadwax_dht::{NodeId, VolumeId};

use super::seeded::{key, track};

fn volume(number: u8) -> VolumeId {
    VolumeId::from_bytes([number; 16])
}

/// Copies on volumes 1 to `count`, each in the node of its number.
fn copies(count: u8) -> Vec<(VolumeId, NodeId)> {
    (1..=count).map(|number| (volume(number), key(number).node_id())).collect()
}

fn receipt(number: u8) -> Receipt {
    Receipt::sign(&key(number), track(1), volume(number), 50)
}

#[test]
fn complete_when_every_holder_of_every_epoch_has_receipted_or_is_dead() {
    let mut receipts = Receipts::default();
    receipts.expect(track(1), &copies(3)).expect("room");
    receipts.take(&receipt(1)).expect("awaited");
    receipts.set_reachable(&key(2).node_id(), false);
    let progress = |receipts: &Receipts| receipts.progress(&track(1)).expect("open");
    assert_eq!(progress(&receipts), Progress { pending: 1, unreachable: 1, dead: 0, erased: 1 });
    receipts.set_dead(&volume(2), true);
    receipts.take(&receipt(3)).expect("awaited");
    assert!(progress(&receipts).is_complete());
    receipts.judge(&track(1), |each| *each == volume(3));
    assert_eq!(progress(&receipts), Progress { pending: 0, unreachable: 1, dead: 0, erased: 2 }, "one that signed has");
    receipts.judge(&track(1), |each| *each == volume(2));
    assert!(progress(&receipts).is_complete());
    // A later epoch gave it a fourth holder, and the dead drive came back.
    receipts.expect(track(1), &copies(4)).expect("room");
    receipts.set_dead(&volume(2), false);
    assert_eq!(progress(&receipts), Progress { pending: 1, unreachable: 1, dead: 0, erased: 2 });
    receipts.set_reachable(&key(2).node_id(), true);
    assert_eq!(progress(&receipts), Progress { pending: 2, unreachable: 0, dead: 0, erased: 2 });
    receipts.set_reachable(&key(2).node_id(), false);
    receipts.keep_nodes([key(3).node_id()].iter());
    assert_eq!(progress(&receipts).unreachable, 0, "it is not in the map any more");
    assert!(!receipts.close(&track(1)));
    receipts.take(&receipt(2)).expect("awaited");
    receipts.take(&receipt(4)).expect("awaited");
    receipts.set_dead(&volume(4), true);
    receipts.set_reachable(&key(4).node_id(), false);
    assert!(receipts.copies(&track(1)).all(|(_, _, state)| state == CopyState::Erased(50)), "erased is final");
    assert!(receipts.close(&track(1)) && receipts.progress(&track(1)).is_none());
}

#[test]
fn only_the_volumes_node_can_receipt() {
    let mut receipts = Receipts::default();
    receipts.expect(track(1), &copies(2)).expect("room");
    let forged = Receipt::sign(&key(2), track(1), volume(1), 50);
    assert_eq!(receipts.take(&forged), Err(BadReceipt::Signature));
    assert_eq!(receipts.take(&Receipt { time: 51, ..receipt(1) }), Err(BadReceipt::Signature));
    assert_eq!(receipts.take(&receipt(3)), Err(BadReceipt::Unknown));
    assert_eq!(receipts.progress(&track(1)).expect("open").pending, 2);
    assert_eq!(receipt(1).signer(), Some(key(1).node_id()));
}

#[test]
fn pages_and_bounds() {
    let mut receipts = Receipts::default();
    let mut ids: Vec<_> = (0..25).map(track).collect();
    ids.iter().for_each(|id| receipts.expect(*id, &copies(2)).expect("room"));
    ids.sort_unstable();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = receipts.page(after.as_ref(), 10);
        assert!(page.len() <= 10);
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        seen.extend(page.into_iter().map(|(id, _)| id));
    }
    assert_eq!(seen, ids);
    let many: Vec<_> =
        (0..=COPIES_MAX as u128).map(|n| (VolumeId::from_bytes(n.to_le_bytes()), key(1).node_id())).collect();
    assert_eq!(receipts.expect(track(30), &many), Err(BadReceipt::Copies));
    assert!(receipts.progress(&track(30)).is_none());
}
