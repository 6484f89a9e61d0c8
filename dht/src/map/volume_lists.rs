//! Lists of volumes, each kept once.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::VolumeId;

/// Has one copy of lists that are alike. A map names holders up to 65,536 times, and every epoch and thread has its own:
/// of few volumes there are few lists, and each time costs a pointer then.
#[derive(Default, Debug)]
pub(crate) struct VolumeLists(BTreeSet<Arc<[VolumeId]>>);

impl VolumeLists {
    /// The one that is like `list`.
    pub(crate) fn one(&mut self, list: &[VolumeId]) -> Arc<[VolumeId]> {
        if let Some(known) = self.0.get(list) {
            return known.clone();
        }
        let list: Arc<[VolumeId]> = list.into();
        self.0.insert(list.clone());
        list
    }
}
