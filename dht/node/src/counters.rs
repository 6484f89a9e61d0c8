//! What a node counts since it began to serve.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counted by all shards, read by status. Relaxed: each stands for itself.
        #[derive(Default)]
        pub(crate) struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
        }

        impl Counters {
            /// All, by name.
            pub(crate) fn snapshot(&self) -> BTreeMap<String, u64> {
                [$((stringify!($name), &self.$name),)*]
                    .into_iter()
                    .map(|(name, counter)| (name.to_owned(), counter.0.load(Ordering::Relaxed)))
                    .collect()
            }
        }
    };
}

counters! {
    /// Connections accepted.
    connections,
    /// Connections closed because there were too many.
    connections_refused,
    /// Connections closed because what came was no frame, or none that belonged there.
    garbage,
    /// Connections that ended before both sides had greeted: refused, silent, or not what they should be.
    greetings_failed,
    /// Tracks made durable.
    puts,
    /// Their bytes.
    put_bytes,
    /// Puts of tracks that were there already.
    puts_already,
    /// Puts that began and did not end in a track.
    puts_aborted,
    /// Ranges sent whole.
    gets,
    /// Track bytes sent.
    get_bytes,
    /// Gets that broke off.
    gets_aborted,
    /// Tracks taken down.
    takedowns,
    /// Requests answered Busy.
    busy,
    /// Requests answered with any other error.
    errors,
    /// Messages to other nodes.
    messages,
    /// Those that did not come to them, as far as is known.
    messages_lost,
    /// Tracks fetched from other nodes.
    pulls,
    /// Their bytes, and of those that were not fetched to the end.
    pull_bytes,
    /// Tracks that could not be fetched, this time.
    pulls_failed,
    /// Tracks erased that belong elsewhere by now.
    strays_erased,
    /// Damaged records found.
    rotten,
    /// Volumes that were opened again without an operator, after their drives had hung.
    volumes_revived,
    /// Messages of other nodes for which the core had no time.
    messages_dropped,
    /// Messages of other nodes that are of a later version than this node speaks.
    messages_later,
    /// Requests handed to another shard.
    crossings,
}

/// One of them.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}
