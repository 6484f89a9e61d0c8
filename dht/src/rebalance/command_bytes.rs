//! The bytes of operators' commands.

use std::collections::BTreeSet;

use super::command::Command;
use crate::log::{
    BadBytes, RECORD_BYTES_MAX, Reader, VOTERS_MAX, Writer, read_node, read_policy, read_rack, read_spec, read_volume,
    write_node, write_policy, write_rack, write_spec, write_volume,
};
use crate::{NodeId, TokenName, Volume, VolumeId};

/// The version of a command's bytes. As with records: 2, since lists of volumes are numbered.
const VERSION: u8 = 2;
/// The most bytes of a command: one with a whole map, like its record. One that needs none has far less.
pub const COMMAND_BYTES_MAX: usize = RECORD_BYTES_MAX;

/// ```text
/// version u8 │ tag u8 │ what follows
///    1 add node       node                         8 set zone     node 32, zone text
///    2 remove node    node 32                      9 set rack     node 32, rack: option of text
///    3 add volume     node 32, volume             10 set address  node 32, address text
///    4 remove volume  volume 16                   11 set policy   copies, write quorum, zones: u8 each
///    5 drain node     node 32, drain u8           12 roll back    to u64, map, leaving: count u32, 16 each, rising
///    6 drain volume   volume 16, drain u8         13 set dead     node 32, dead u8
///    7 set weight     volume 16, weight u32       14 set voters   nodes: count u32, 32 each, at most 7
///                                                 15 finalise     protocol u8
///   16 make token    name 32, ttl u64             17 revoke tokens
///   18 admit         token 32, node
/// ```
///
/// Nodes, volumes and maps are written as in the log's records. Whether what is asked for keeps the rules is not known
/// before it is carried out.
impl Command {
    /// The command's bytes: at most [`COMMAND_BYTES_MAX`]. A [`Core`](crate::core::Core) takes the map of a roll back,
    /// and what was leaving, from its own history: who sends one may leave out nodes, overrides and leaving volumes.
    ///
    /// # Panics
    ///
    /// Where a zone, rack or address has 64 KiB or more: nobody takes one of over 255 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u8(VERSION);
        out.u8(self.tag());
        match self {
            Self::AddNode(node) => write_node(&mut out, node),
            Self::RemoveNode(node) => out.node(node),
            Self::AddVolume { node, volume } => {
                out.node(node);
                write_volume(&mut out, *volume);
            }
            Self::RemoveVolume(volume) => out.volume(volume),
            Self::DrainNode { node, drain: flag } | Self::SetDead { node, dead: flag } => {
                out.node(node);
                out.bool(*flag);
            }
            Self::DrainVolume { volume, drain } => {
                out.volume(volume);
                out.bool(*drain);
            }
            Self::SetWeight { volume, weight } => write_volume(&mut out, Volume { id: *volume, weight: *weight }),
            Self::SetZone { node, zone: text } | Self::SetAddress { node, address: text } => {
                out.node(node);
                out.text(text);
            }
            Self::SetRack { node, rack } => {
                out.node(node);
                write_rack(&mut out, rack.as_deref());
            }
            Self::SetPolicy(policy) => write_policy(&mut out, *policy),
            Self::RollBack { to, spec, leaving } => {
                out.u64(*to);
                write_spec(&mut out, spec);
                out.list(leaving.iter(), Writer::volume);
            }
            Self::SetVoters(voters) => out.list(voters.iter(), Writer::node),
            Self::Finalise { protocol } => out.u8(*protocol),
            Self::MakeToken { name, ttl_ms } => {
                name.write(&mut out);
                out.u64(*ttl_ms);
            }
            Self::RevokeTokens => {}
            Self::Admit { token, node } => {
                token.write(&mut out);
                write_node(&mut out, node);
            }
        }
        out.finish()
    }

    /// The command of these bytes. Total: any bytes give a command or an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut from = Reader::new(bytes, "command", COMMAND_BYTES_MAX)?;
        from.version(VERSION)?;
        let command = match from.u8()? {
            1 => Self::AddNode(read_node(&mut from)?),
            2 => Self::RemoveNode(from.node()?),
            3 => Self::AddVolume { node: from.node()?, volume: read_volume(&mut from)? },
            4 => Self::RemoveVolume(from.volume()?),
            5 => Self::DrainNode { node: from.node()?, drain: from.bool("drain")? },
            6 => Self::DrainVolume { volume: from.volume()?, drain: from.bool("drain")? },
            7 => {
                let Volume { id, weight } = read_volume(&mut from)?;
                Self::SetWeight { volume: id, weight }
            }
            8 => Self::SetZone { node: from.node()?, zone: from.text()? },
            9 => Self::SetRack { node: from.node()?, rack: read_rack(&mut from)? },
            10 => Self::SetAddress { node: from.node()?, address: from.text()? },
            11 => Self::SetPolicy(read_policy(&mut from)?),
            12 => {
                Self::RollBack { to: from.u64()?, spec: Box::new(read_spec(&mut from)?), leaving: leaving(&mut from)? }
            }
            13 => Self::SetDead { node: from.node()?, dead: from.bool("dead")? },
            14 => Self::SetVoters(voters(&mut from)?),
            15 => Self::Finalise { protocol: from.u8()? },
            16 => Self::MakeToken { name: TokenName::read(&mut from)?, ttl_ms: from.u64()? },
            17 => Self::RevokeTokens,
            18 => Self::Admit { token: TokenName::read(&mut from)?, node: read_node(&mut from)? },
            got => return Err(BadBytes::Tag { what: "command", got }),
        };
        from.finish()?;
        Ok(command)
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::AddNode(_) => 1,
            Self::RemoveNode(_) => 2,
            Self::AddVolume { .. } => 3,
            Self::RemoveVolume(_) => 4,
            Self::DrainNode { .. } => 5,
            Self::DrainVolume { .. } => 6,
            Self::SetWeight { .. } => 7,
            Self::SetZone { .. } => 8,
            Self::SetRack { .. } => 9,
            Self::SetAddress { .. } => 10,
            Self::SetPolicy(_) => 11,
            Self::RollBack { .. } => 12,
            Self::SetDead { .. } => 13,
            Self::SetVoters(_) => 14,
            Self::Finalise { .. } => 15,
            Self::MakeToken { .. } => 16,
            Self::RevokeTokens => 17,
            Self::Admit { .. } => 18,
        }
    }
}

fn leaving(from: &mut Reader<'_>) -> Result<BTreeSet<VolumeId>, BadBytes> {
    let volumes = from.list(16, Reader::volume)?;
    if volumes.is_sorted_by(|volume, next| volume < next) {
        Ok(volumes.into_iter().collect())
    } else {
        Err(BadBytes::Order("leaving volumes"))
    }
}

fn voters(from: &mut Reader<'_>) -> Result<Vec<NodeId>, BadBytes> {
    let voters = from.list(32, Reader::node)?;
    let (got, max) = (voters.len(), VOTERS_MAX);
    if got > max { Err(BadBytes::TooLong { what: "list of voters", got, max }) } else { Ok(voters) }
}
