//! A node's settings and the map by its log, which change apart: what they do not share keeps nobody from serving.

use deadwax_dht::VolumeId;
use deadwax_dht::wire::{ErrorCode, Message, VolumeState};
use deadwax_node::init;
use deadwax_track::TrackId;

use crate::cluster::{Site, place};
use crate::drives::{from_a_file, volume_once, write_settings};

/// One of three nodes that found a cluster, each with two volumes that the map gives it. The others do not run.
fn one_of_three() -> Site {
    let [mut site, ..] = Site::trio_with(|config| config.volumes.push(config.dir.with_file_name("second")));
    site.volumes = initialised(&site);
    site
}

/// The volumes in its settings; those that are new are made.
fn initialised(site: &Site) -> Vec<VolumeId> {
    let entry = init(&site.config, &place()).expect("initialises");
    entry.volumes.iter().map(|volume| volume.id).collect()
}

/// Each volume that the node knows of, and whether it serves.
fn known(site: &Site) -> Vec<(VolumeId, bool)> {
    let volumes = site.connect().status().volumes;
    volumes.iter().map(|volume| (volume.id, volume.state == VolumeState::Serving)).collect()
}

#[test]
fn a_volume_that_the_map_does_not_give_any_more_is_left_out_and_the_others_serve() {
    let mut site = one_of_three();
    let both: Vec<_> = site.volumes.iter().map(|volume| (*volume, true)).collect();
    // As after a retirement, before anybody edits the settings; or before this node hears of a volume that was added.
    site.config.volumes.insert(0, site.path("not given"));
    let stray = initialised(&site)[0];
    from_a_file(&mut site);
    let node = site.start();
    assert_eq!(known(&site), both);
    let id = TrackId::of(b"anything");
    let (code, why) = site.connect().error(&Message::Has { volume: stray, id });
    assert_eq!(code, ErrorCode::WrongNode, "{why}");
    node.stopper().reload().expect("all else is in order");
    assert_eq!(known(&site), both);
    node.stop();
}

#[test]
fn a_volume_that_no_directory_has_is_fenced_and_served_once_the_settings_name_it() {
    let mut site = one_of_three();
    let (first, second) = (site.volumes[0], site.volumes[1]);
    let dir = site.config.volumes.pop().expect("two");
    from_a_file(&mut site);
    let node = site.start();
    let fenced = volume_once(&site, second, |_| true);
    assert_eq!((fenced.state, fenced.dir.as_str()), (VolumeState::Fenced, ""));
    assert!(fenced.reason.is_some_and(|why| why.contains("none of its directories") && why.contains("`volumes`")));
    node.stopper().reload().expect("in order");
    assert_eq!(known(&site), [(first, true), (second, false)]);
    site.config.volumes.push(dir);
    write_settings(&site, &site.path("node.toml"));
    node.stopper().reload().expect("in order");
    assert_eq!(known(&site), [(first, true), (second, true)]);
    node.stop();
}

#[test]
fn a_drive_that_is_gone_keeps_nobody_from_starting_whatever_else_the_map_gives() {
    let mut site = one_of_three();
    let (first, second) = (site.volumes[0], site.volumes[1]);
    // Two directories fail, and of one volume only it is not known where it is: the other was retired.
    site.config.volumes.extend(["unplugged", "unplugged too"].map(|name| site.path(name)));
    let dir = site.config.volumes.remove(1);
    let node = site.start();
    assert_eq!(known(&site), [(first, true), (second, false)]);
    node.stop();
    // Nothing that it has is given to it: it starts, since it may vote.
    site.config.volumes = vec![site.path("not given")];
    initialised(&site);
    let node = site.start();
    let mut none = vec![(first, false), (second, false)];
    none.sort_unstable();
    assert_eq!(known(&site), none);
    node.stop();
    site.config.volumes = vec![dir];
    let _node = site.start();
    assert!(known(&site).contains(&(second, true)));
}
