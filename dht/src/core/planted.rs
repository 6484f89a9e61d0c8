//! Mistakes on purpose, by which the simulator's checkers are checked.

/// A mistake that a core, or who drives it, makes where it is told to: each must be caught by a checker. Only with the feature `planted`,
/// which no program that serves has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[cfg_attr(not(feature = "planted"), allow(dead_code, unreachable_pub, reason = "none is made"))]
pub enum Bug {
    /// A put is answered before its bytes are durable.
    AcknowledgeEarly,
    /// A stand-in erases what it stored at once.
    ForgetStandIn,
    /// An old holder erases what a new one has pulled, before all have it.
    CollectEarly,
    /// A put is taken and answered whatever the epoch by which it came.
    AcceptOldEpoch,
    /// A volume that has just come up says *absent* at once.
    AbsentUnproved,
    /// Any volume says *absent*, at any epoch.
    AbsentAnywhere,
    /// A node serves though it may lack takedowns.
    ServeStale,
    /// A witness says that it has asked the others just now, whenever that was.
    StaleWord,
    /// A put that was taken down meanwhile counts, and its copy stays.
    ResurrectAtEnd,
    /// A new holder says that it has all when it is told of the move.
    SyncedEarly,
    /// A node that is down is dead at once, and its zone has no brake.
    DownIsDead,
    /// A voter that lost its state goes on voting in its seat.
    KeepSeat,
    /// A seat is begun anew by any process of its node, not only by the one that it was given to.
    TakeAnySeat,
    /// A new holder says that it has all once it is equal with one old holder.
    SyncedByOne,
    /// The older of two processes of one name goes on.
    NeverHalt,
    /// What a volume lacks is not pulled.
    NeverPull,
    /// A rotten copy stays as it is.
    IgnoreRot,
    /// A receipt is signed for what is still there.
    ReceiptEarly,
    /// Requests are let in however many are under way.
    NeverBusy,
    /// The cluster is finalised whatever its nodes speak.
    FinaliseUnheard,
    /// What was stored is pulled once more.
    PullAgain,
    /// What is to be pulled is forgotten, and thought to be under way.
    LosePull,
    /// A reader does not prove what a holder sends. By the driver.
    ReadUnproved,
    /// A get that goes on at another holder asks for the track from its beginning. By the driver.
    ResumeAnywhere,
    /// What was pulled is stored though it does not hash to its id. By the driver.
    StoreUnproved,
}

impl Bug {
    /// Each of them.
    #[cfg(feature = "planted")]
    pub const ALL: [Self; 25] = [
        Self::AcknowledgeEarly,
        Self::ForgetStandIn,
        Self::CollectEarly,
        Self::AcceptOldEpoch,
        Self::AbsentUnproved,
        Self::AbsentAnywhere,
        Self::ServeStale,
        Self::StaleWord,
        Self::ResurrectAtEnd,
        Self::SyncedEarly,
        Self::DownIsDead,
        Self::KeepSeat,
        Self::TakeAnySeat,
        Self::SyncedByOne,
        Self::NeverHalt,
        Self::NeverPull,
        Self::IgnoreRot,
        Self::ReceiptEarly,
        Self::NeverBusy,
        Self::FinaliseUnheard,
        Self::PullAgain,
        Self::LosePull,
        Self::ReadUnproved,
        Self::ResumeAnywhere,
        Self::StoreUnproved,
    ];
}

impl super::Core {
    #[cfg(feature = "planted")]
    pub(super) fn planted(&self, bug: Bug) -> bool {
        self.config.bug == Some(bug)
    }

    #[cfg(not(feature = "planted"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(super) const fn planted(&self, _: Bug) -> bool {
        false
    }
}
