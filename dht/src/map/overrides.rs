//! Overrides in the map's text: a table with a line for each partition, which has its holders' names.
//!
//! ```toml
//! [overrides]
//! 03fc = "0123...cdef 4567...89ab 89ab...4567"
//! ```

use std::fmt;

use deadwax_track::Partition;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserializer, Serializer};

use super::{Override, VolumeLists};
use crate::VolumeId;

pub(super) fn serialize<S: Serializer>(overrides: &[Override], serializer: S) -> Result<S::Ok, S::Error> {
    let line = |over: &Override| {
        let names: Vec<String> = over.volumes.iter().map(ToString::to_string).collect();
        (format!("{:04x}", over.partition.0), names.join(" "))
    };
    serializer.collect_map(overrides.iter().map(line))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Override>, D::Error> {
    deserializer.deserialize_map(Lines)
}

struct Lines;

impl<'de> Visitor<'de> for Lines {
    type Value = Vec<Override>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of overrides, such as 03fc = \"a volume, another\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut lines: A) -> Result<Self::Value, A::Error> {
        let (mut overrides, mut lists) = (Vec::new(), VolumeLists::default());
        while let Some((partition, names)) = lines.next_entry::<String, String>()? {
            let digits = partition.len() == 4 && partition.bytes().all(|digit| digit.is_ascii_hexdigit());
            let number = u16::from_str_radix(&partition, 16).ok().filter(|_| digits);
            let number = number.ok_or_else(|| {
                A::Error::custom(format!("{partition:?} is no partition; one is four hexadecimal digits"))
            })?;
            let volumes = names.split_whitespace().map(str::parse).collect::<Result<Vec<VolumeId>, _>>();
            let volumes = lists.one(&volumes.map_err(A::Error::custom)?);
            overrides.push(Override { partition: Partition(number), volumes });
        }
        Ok(overrides)
    }
}
