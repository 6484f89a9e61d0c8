//! When a node may serve.

use deadwax_dht::NodeId;
use deadwax_dht::takedown::{Basis, Gate, Lease, LeaseRules, Stale, Standing, Verdict};

use super::seeded::{issue, log, track};

const RULES: LeaseRules = LeaseRules { lease_ms: 60_000, grace_ms: 3_600_000, minority_ms: 60_000 };
const YEAR_MS: u64 = 365 * 86_400_000;

fn ids(count: u8) -> Vec<NodeId> {
    (0..count).map(|number| NodeId::from_bytes([number; 32])).collect()
}

/// The lease of node 0 of `count`, started at 1,000 ms.
fn lease(count: u8, rules: LeaseRules, intact: bool) -> Lease {
    let mut lease = Lease::new(ids(count)[0], rules, Standing { intact, counts: true }, 1_000).expect("good rules");
    lease.set_members(&ids(count), 1, 1_000);
    lease
}

fn hear(lease: &mut Lease, peers: &[usize], synced: bool, at: u64) {
    peers.iter().for_each(|peer| lease.compared(&ids(20)[*peer], synced, at, at));
}

#[test]
fn half_within_the_lease_and_a_majority_within_the_grace() {
    let mut four = lease(4, RULES, true);
    assert_eq!(four.may_serve(1_000), Err(Stale { since: 0 }));
    hear(&mut four, &[1], true, 2_000);
    assert!(four.may_serve(2_000).is_err(), "two of four are half, but there was never a majority");
    hear(&mut four, &[2], true, 3_000);
    assert!(four.may_serve(61_999).is_ok() && four.may_serve(62_999).is_ok());
    assert_eq!(four.may_serve(63_000), Err(Stale { since: 63_000 }), "one ms before, node 2 still made half");
    // The other half is gone: node 1 alone renews until the grace is over. A majority was last there when node 1
    // (2,000) and node 2 (3,000) had been asked; node 1 is asked again and again.
    let mut now = 3_000;
    while now < 3_603_000 {
        now += 20_000;
        hear(&mut four, &[1], true, now);
        assert_eq!(four.may_serve(now).is_ok(), now < 3_603_000, "{now}");
    }
    hear(&mut four, &[2], true, now);
    assert!(four.may_serve(now).is_ok());
}

#[test]
fn fewer_than_half_stop_after_the_lease_unless_told_otherwise() {
    let mut five = lease(5, RULES, true);
    hear(&mut five, &[1, 2], true, 2_000);
    assert!(five.may_serve(61_999).is_ok() && five.may_serve(62_000).is_err());
    let mut five = lease(5, LeaseRules { minority_ms: 900_000, ..RULES }, true);
    hear(&mut five, &[1, 2], true, 2_000);
    assert!(five.may_serve(901_999).is_ok() && five.may_serve(902_000).is_err());
}

#[test]
fn the_time_counts_from_the_question() {
    let mut three = lease(3, RULES, true);
    three.compared(&ids(3)[1], true, 5_000, 64_000);
    assert!(three.may_serve(64_999).is_ok() && three.may_serve(65_000).is_err());
}

#[test]
fn one_node_alone_and_one_that_is_no_member() {
    assert!(lease(1, RULES, true).may_serve(YEAR_MS).is_ok());
    assert!(lease(1, RULES, false).may_serve(1_000).is_ok());
    let mut unknown = Lease::new(ids(1)[0], RULES, Standing::WHOLE, 1_000).expect("good rules");
    assert!(unknown.may_serve(1_000).is_err(), "no map yet");
    // A cache is no member, and needs as many as a member does, none of them itself.
    unknown.set_members(&ids(4)[1..], 1, 1_000);
    hear(&mut unknown, &[1], true, 2_000);
    assert!(unknown.may_serve(2_000).is_err());
    hear(&mut unknown, &[2], true, 2_001);
    assert!(unknown.may_serve(61_999).is_ok() && unknown.may_serve(62_001).is_err());
}

#[test]
fn nodes_declared_dead_count_no_more() {
    let mut four = lease(4, RULES, true);
    hear(&mut four, &[1, 2, 3], true, 2_000);
    hear(&mut four, &[1], true, 3_700_000);
    assert!(four.may_serve(3_700_000).is_err());
    four.set_members(&ids(2), 1, 3_700_000);
    assert!(four.may_serve(3_700_000).is_ok());
}

#[test]
fn whoever_has_not_caught_up_counts_for_nobody() {
    let mut three = lease(3, RULES, true);
    hear(&mut three, &[1], false, 2_000);
    assert!(three.synced() && three.may_serve(2_000).is_err(), "it has caught up, but nobody grants it a lease");
    hear(&mut three, &[1], true, 3_000);
    assert!(three.may_serve(3_000).is_ok());
}

#[test]
fn a_log_that_lost_something_needs_half_beside_itself() {
    let mut five = lease(5, RULES, false);
    hear(&mut five, &[1, 2], true, 2_000);
    hear(&mut five, &[3, 4], false, 2_000);
    assert!(!five.synced() && five.may_serve(2_000).is_err());
    hear(&mut five, &[3], true, 2_001);
    assert!(five.synced() && five.may_serve(2_001).is_ok());
}

#[test]
fn sleep_and_clocks_that_jump_make_it_stale() {
    let fresh = || {
        let mut lease = lease(3, RULES, true);
        hear(&mut lease, &[1, 2], true, 10_000);
        assert!(lease.may_serve(10_000).is_ok());
        lease
    };
    let slept = fresh();
    assert_eq!(slept.may_serve(10_000 + YEAR_MS), Err(Stale { since: 70_000 }));
    assert!(fresh().may_serve(9_999).is_err(), "the clock went back");
    let mut back = fresh();
    back.compared(&ids(3)[1], true, 5_000, 5_000);
    assert!(back.may_serve(5_000).is_err() && !back.synced(), "the clock went back: all is forgotten");
    let mut frozen = fresh();
    frozen.void(10_001);
    assert!(frozen.may_serve(10_001).is_err() && !frozen.synced());
    frozen.compared(&ids(3)[1], true, 10_000, 10_002);
    assert!(frozen.may_serve(10_002).is_err(), "the question is from before the sleep");
    hear(&mut frozen, &[1], true, 10_003);
    assert!(frozen.may_serve(10_003).is_ok());
}

#[test]
fn strangers_and_the_future_count_for_nothing() {
    let mut three = lease(3, RULES, true);
    hear(&mut three, &[9, 10], true, 2_000);
    three.compared(&ids(3)[1], true, 3_000, 2_500);
    assert!(three.may_serve(3_000).is_err() && !three.synced());
}

#[test]
fn rules_that_contradict_each_other_are_refused() {
    for (lease_ms, minority_ms, grace_ms) in [(0, 0, 0), (2, 1, 3), (1, 3, 2)] {
        let rules = LeaseRules { lease_ms, grace_ms, minority_ms };
        assert!(Lease::new(ids(1)[0], rules, Standing::WHOLE, 0).is_err());
    }
    assert!(Lease::new(ids(1)[0], LeaseRules::default(), Standing::WHOLE, 0).is_ok());
}

#[test]
fn the_gate_bars_first_then_doubts_then_lets_pass() {
    let mut log = log(1);
    let name = issue(&mut log, 1, 1, 1)[0].name();
    let mut lease = lease(3, RULES, true);
    let check = |lease: &Lease, number, now| Gate { log: &log, lease }.check(&track(number), now);
    assert_eq!(check(&lease, 1, 2_000), Verdict::Barred(name));
    assert_eq!(check(&lease, 2, 2_000), Verdict::Stale(Stale { since: 0 }));
    hear(&mut lease, &[1], true, 2_000);
    assert_eq!(check(&lease, 1, 2_000), Verdict::Barred(name));
    assert_eq!(check(&lease, 2, 2_000), Verdict::Pass);
    assert_eq!(check(&lease, 2, 62_000), Verdict::Stale(Stale { since: 62_000 }));
}

/// A lease of node 0 of five that counts; and one told that members changed meanwhile: in order, or not at all.
fn five_then(skips: bool) -> Lease {
    let mut five = lease(5, RULES, true);
    hear(&mut five, &[1, 2, 3, 4], true, 2_000);
    assert!(five.synced() && five.may_serve(3_000).is_ok());
    if skips {
        five.forget_members(3_000);
        assert!(five.may_serve(3_000).is_err() && !five.is_sure(3_000));
    } else {
        five.set_members(&ids(5)[1..], 1, 3_000);
    }
    five.set_members(&ids(5), 1, 3_000);
    five
}

#[test]
fn who_skipped_maps_begins_as_a_witness_anew_as_one_that_was_told_all() {
    for skips in [false, true] {
        let mut five = five_then(skips);
        assert!(!five.synced(), "skips: {skips}");
        hear(&mut five, &[1, 2], true, 4_000);
        hear(&mut five, &[3], false, 4_000);
        five.compared(&ids(5)[4], true, 2_999, 4_000);
        assert!(!five.synced(), "two are no majority, skips: {skips}");
        hear(&mut five, &[3], true, 5_000);
        assert!(five.synced() && five.may_serve(5_000).is_ok(), "skips: {skips}");
    }
}

#[test]
fn a_new_witness_that_starts_again_has_still_to_catch_up() {
    let before = five_then(false).standing();
    assert_eq!(before, Standing { intact: true, counts: false });
    let mut five = Lease::new(ids(5)[0], RULES, before, 1_000).expect("good rules");
    five.set_members(&ids(5), 1, 1_000);
    hear(&mut five, &[1, 2], true, 2_000);
    assert!(!five.synced() && five.standing() == before, "two are no majority");
    hear(&mut five, &[3], true, 3_000);
    assert!(five.synced() && five.standing() == Standing::WHOLE);
}

#[test]
fn a_log_that_lost_something_is_not_whole_because_maps_were_skipped() {
    let mut five = lease(5, RULES, false);
    five.forget_members(2_000);
    five.set_members(&ids(5), 1, 2_000);
    hear(&mut five, &[1, 2, 3, 4], false, 3_000);
    assert!(!five.synced() && five.may_serve(3_000).is_err());
    hear(&mut five, &[1, 2, 3], true, 4_000);
    assert!(five.synced());
}

#[test]
fn one_that_is_no_witness_and_skipped_maps_becomes_one_in_order() {
    let mut five = lease(5, RULES, true);
    hear(&mut five, &[1, 2], true, 2_000);
    five.forget_members(3_000);
    five.set_members(&ids(5)[1..], 1, 3_000);
    five.set_members(&ids(5), 1, 4_000);
    assert!(!five.synced());
    hear(&mut five, &[1, 2, 3], true, 4_000);
    assert!(five.synced());
}

#[test]
fn witnesses_that_all_skipped_maps_go_on_when_each_has_compared_with_all() {
    let members = ids(3);
    let mut leases: Vec<Lease> =
        members.iter().map(|id| Lease::new(*id, RULES, Standing::WHOLE, 1_000).expect("good rules")).collect();
    for lease in &mut leases {
        lease.set_members(&members, 1, 1_000);
        lease.forget_members(2_000);
        lease.set_members(&members, 1, 2_000);
    }
    let mut round = |pairs: &[(usize, usize)], now| {
        for (at, with) in pairs {
            let synced = leases[*with].synced();
            leases[*at].compared(&members[*with], synced, now, now);
        }
        leases.iter().map(|lease| (lease.synced(), lease.may_serve(now).is_ok())).collect::<Vec<_>>()
    };
    assert_eq!(round(&[(0, 1), (1, 0)], 3_000), [(false, false); 3], "the third may know more");
    let all = [(0, 2), (1, 2), (2, 0), (2, 1)];
    assert!(round(&all, 4_000).iter().all(|(synced, _)| *synced));
    assert_eq!(round(&all, 5_000), [(true, true); 3]);
}

/// A node that is no member, started at 1,000 ms, of four members by the map of epoch 5.
fn outside() -> Lease {
    let mut lease = Lease::new(ids(9)[8], RULES, Standing::WHOLE, 1_000).expect("good rules");
    lease.set_members(&ids(4), 5, 1_000);
    lease
}

const fn basis(epoch: u64, half_age: u32, majority_age: u32) -> Basis {
    Basis { epoch, half_age, majority_age }
}

#[test]
fn a_members_word_is_as_good_as_half_of_them_asked_when_it_asked() {
    let mut lease = outside();
    lease.told(&ids(5)[1], &basis(5, 8_000, 20_000), 30_000, 30_100);
    lease.compared(&ids(4)[1], true, 30_000, 30_100);
    assert!(lease.may_serve(81_999).is_ok() && lease.may_serve(82_000).is_err(), "60 s from 22,000");
    assert!(lease.is_sure(69_999) && !lease.is_sure(70_000), "of a majority, 60 s from 10,000");
    // A majority that was had an hour ago is worth nothing.
    let mut lease = outside();
    lease.told(&ids(5)[1], &basis(5, 8_000, 3_600_000), 3_601_000, 3_601_000);
    lease.compared(&ids(4)[1], true, 3_601_000, 3_601_000);
    assert!(lease.may_serve(3_601_000).is_err());
}

#[test]
fn what_a_member_had_before_the_clock_began_counts_for_so_much_less() {
    let mut lease = outside();
    lease.told(&ids(5)[1], &basis(5, 8_000, 61_000), 2_000, 2_000);
    lease.compared(&ids(4)[1], true, 2_000, 2_000);
    assert!(lease.may_serve(53_999).is_ok() && lease.may_serve(54_000).is_err());
    assert!(!lease.is_sure(2_000), "a majority was asked 61 s before");
}

#[test]
fn a_word_of_an_earlier_map_or_of_no_member_or_of_before_a_jump_counts_for_nothing() {
    let mut lease = outside();
    lease.told(&ids(5)[1], &basis(4, 0, 0), 9_000, 9_000);
    lease.told(&ids(5)[4], &basis(5, 0, 0), 9_000, 9_000);
    lease.compared(&ids(4)[1], true, 9_000, 9_000);
    assert!(lease.may_serve(9_000).is_err());
    lease.void(20_000);
    lease.told(&ids(5)[1], &basis(5, 0, 0), 19_999, 20_001);
    lease.compared(&ids(4)[1], true, 20_001, 20_001);
    assert!(lease.may_serve(20_001).is_err());
    lease.told(&ids(5)[1], &basis(9, 0, 0), 20_002, 20_002);
    lease.compared(&ids(4)[1], true, 20_002, 20_002);
    assert!(lease.may_serve(20_002).is_ok(), "who knows a later map may speak");
    lease.forget_members(20_003);
    lease.set_members(&ids(4), 10, 20_003);
    assert!(lease.may_serve(20_003).is_err());
}

#[test]
fn a_members_word_outlives_a_change_of_members_for_a_moment_only() {
    let mut lease = outside();
    lease.told(&ids(5)[1], &basis(5, 1_000, 1_000), 30_000, 30_000);
    lease.compared(&ids(4)[1], true, 30_000, 30_000);
    lease.set_members(&ids(4), 6, 31_000);
    assert!(lease.may_serve(88_999).is_ok(), "the members are the same");
    lease.set_members(&ids(5)[1..], 7, 32_000);
    assert!(lease.may_serve(41_999).is_ok() && lease.may_serve(42_000).is_err());
    lease.told(&ids(5)[1], &basis(6, 0, 0), 33_000, 33_000);
    lease.compared(&ids(4)[1], true, 33_000, 33_000);
    assert!(lease.may_serve(42_000).is_err(), "who does not know of the change has no say");
    lease.told(&ids(5)[1], &basis(7, 2_000, 2_000), 34_000, 34_000);
    lease.compared(&ids(4)[1], true, 34_000, 34_000);
    assert!(lease.may_serve(91_999).is_ok() && lease.may_serve(92_000).is_err());
}

#[test]
fn members_go_by_what_they_compare_themselves_and_say_how_old_that_is() {
    let mut four = lease(4, RULES, true);
    four.told(&ids(5)[1], &basis(1, 0, 0), 2_000, 2_000);
    hear(&mut four, &[1], true, 2_000);
    assert!(four.may_serve(2_000).is_err() && four.basis(2_000).is_none());
    hear(&mut four, &[2], true, 5_000);
    assert_eq!(
        four.basis(7_000),
        Some(basis(1, 2_000, 5_000)),
        "with itself it makes half with node 2, and most with both"
    );
    let mut fresh = lease(4, RULES, false);
    hear(&mut fresh, &[1, 2, 3], false, 2_000);
    assert_eq!(fresh.basis(2_000), None, "it counts for nobody itself");
    assert_eq!(outside().basis(1_000), None);
}
