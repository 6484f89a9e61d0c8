//! The bytes of a map's parts.

use deadwax_track::Partition;

use super::codec::{BadBytes, Reader, Writer};
use super::lists::{Lists, write_lists};
use crate::{ClusterId, MapSpec, Node, Override, Policy, Volume, VolumeId};

pub(crate) fn write_spec(out: &mut Writer, spec: &MapSpec) {
    out.u32(spec.version);
    out.raw(spec.cluster.as_bytes());
    out.u64(spec.epoch);
    write_policy(out, spec.policy);
    out.list(spec.nodes.iter(), write_node);
    write_overrides(out, &spec.overrides);
}

pub(crate) fn read_spec(from: &mut Reader<'_>) -> Result<MapSpec, BadBytes> {
    Ok(MapSpec {
        version: from.u32()?,
        cluster: ClusterId::from_bytes(from.array()?),
        epoch: from.u64()?,
        policy: read_policy(from)?,
        nodes: from.list(32, read_node)?,
        overrides: read_overrides(from)?,
    })
}

pub(crate) fn write_policy(out: &mut Writer, policy: Policy) {
    out.raw(&[policy.copies, policy.write_quorum, policy.zones_min]);
}

pub(crate) fn read_policy(from: &mut Reader<'_>) -> Result<Policy, BadBytes> {
    let [copies, write_quorum, zones_min] = from.array()?;
    Ok(Policy { copies, write_quorum, zones_min })
}

pub(crate) fn write_node(out: &mut Writer, node: &Node) {
    out.node(&node.id);
    out.text(&node.zone);
    write_rack(out, node.rack.as_deref());
    out.text(&node.address);
    out.list(node.volumes.iter(), |out, volume| write_volume(out, *volume));
}

pub(crate) fn read_node(from: &mut Reader<'_>) -> Result<Node, BadBytes> {
    Ok(Node {
        id: from.node()?,
        zone: from.text()?,
        rack: read_rack(from)?,
        address: from.text()?,
        volumes: from.list(20, read_volume)?,
    })
}

pub(crate) fn write_rack(out: &mut Writer, rack: Option<&str>) {
    out.bool(rack.is_some());
    if let Some(rack) = rack {
        out.text(rack);
    }
}

pub(crate) fn read_rack(from: &mut Reader<'_>) -> Result<Option<String>, BadBytes> {
    if from.bool("rack")? { from.text().map(Some) } else { Ok(None) }
}

pub(crate) fn write_volume(out: &mut Writer, volume: Volume) {
    out.volume(&volume.id);
    out.u32(volume.weight);
}

pub(crate) fn read_volume(from: &mut Reader<'_>) -> Result<Volume, BadBytes> {
    Ok(Volume { id: from.volume()?, weight: from.u32()? })
}

pub(super) fn write_overrides(out: &mut Writer, overrides: &[Override]) {
    let numbers = write_lists(out, overrides.iter().map(|over| &*over.volumes));
    out.list(overrides.iter().zip(numbers), |out, (over, number)| {
        out.u16(over.partition.0);
        out.u32(number);
    });
}

pub(super) fn read_overrides(from: &mut Reader<'_>) -> Result<Vec<Override>, BadBytes> {
    let mut lists = Lists::read(from)?;
    let overrides =
        from.list(6, |from| Ok(Override { partition: read_partition(from)?, volumes: lists.next(from)? }))?;
    lists.finish()?;
    Ok(overrides)
}

pub(super) fn write_volumes(out: &mut Writer, volumes: &[VolumeId]) {
    out.list(volumes.iter(), Writer::volume);
}

pub(super) fn read_volumes(from: &mut Reader<'_>) -> Result<Vec<VolumeId>, BadBytes> {
    from.list(16, Reader::volume)
}

pub(super) fn write_partitions(out: &mut Writer, partitions: &[Partition]) {
    out.list(partitions.iter(), |out, partition| out.u16(partition.0));
}

pub(super) fn read_partition(from: &mut Reader<'_>) -> Result<Partition, BadBytes> {
    from.u16().map(Partition)
}

pub(super) fn read_partitions(from: &mut Reader<'_>) -> Result<Vec<Partition>, BadBytes> {
    from.list(2, read_partition)
}
