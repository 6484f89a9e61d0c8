//! Who is connected, so that a stopping node can send away those who wait and wait for those who do not.
//! This file has unsafe code.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::net::Shutdown;

/// A shard's connections.
pub(crate) struct Guests {
    present: RefCell<BTreeMap<u64, Entry>>,
    next: Cell<u64>,
    draining: Cell<bool>,
    /// How many of the process's connections are in a request.
    under_way: Arc<AtomicUsize>,
    /// Told when the last one leaves while draining.
    gone: (flume::Sender<()>, flume::Receiver<()>),
    /// Nothing is sent: it ends when those who wait for something are to leave.
    stay: RefCell<Option<flume::Sender<()>>>,
    stays: flume::Receiver<()>,
}

struct Entry {
    fd: RawFd,
    idle: bool,
}

/// One connection's place among them. Must be dropped before its socket is: its descriptor is used until then.
pub(crate) struct Guest {
    guests: Rc<Guests>,
    number: u64,
}

impl Guests {
    pub(crate) fn new(under_way: Arc<AtomicUsize>) -> Self {
        let (next, draining) = (Cell::new(0), Cell::new(false));
        let (stay, stays) = flume::bounded(1);
        let stay = RefCell::new(Some(stay));
        Self { present: RefCell::default(), next, draining, under_way, gone: flume::bounded(1), stay, stays }
    }

    /// Enters a connection whose socket is `fd`; until its first request it counts as idle.
    pub(crate) fn enter(self: &Rc<Self>, fd: RawFd) -> Guest {
        let number = self.next.replace(self.next.get() + 1);
        self.present.borrow_mut().insert(number, Entry { fd, idle: true });
        Guest { guests: Rc::clone(self), number }
    }

    /// Ends the waits for a next request; requests under way go on, and theirs are the last.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        drop(self.stay.take());
        self.present.borrow().values().filter(|entry| entry.idle).for_each(|entry| entry.shutdown(Shutdown::Read));
    }

    /// Ends all connections, whatever they do.
    pub(crate) fn cut_off(&self) {
        self.present.borrow().values().for_each(|entry| entry.shutdown(Shutdown::Both));
    }

    fn count_under_way(&self, more: bool) {
        if more {
            self.under_way.fetch_add(1, Ordering::Relaxed);
        } else {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.present.borrow().len()
    }

    /// Returns when the last one has left; [`drain`](Self::drain) was called before.
    pub(crate) async fn gone(&self) {
        while self.count() > 0 {
            if self.gone.1.recv_async().await.is_err() {
                return;
            }
        }
    }
}

impl Entry {
    fn shutdown(&self, how: Shutdown) {
        // SAFETY: a guest leaves before its socket is closed, so the descriptor is open and still that socket's.
        let socket = unsafe { BorrowedFd::borrow_raw(self.fd) };
        // It fails where the peer was faster.
        let _ = rustix::net::shutdown(socket, how);
    }
}

impl Guest {
    /// From here on the connection may be ended at any time. False: it is to leave now.
    pub(crate) fn begin_idle(&self) -> bool {
        self.set_idle(true);
        !self.guests.draining.get()
    }

    /// A request has begun: the connection is left to end it.
    pub(crate) fn end_idle(&self) {
        self.set_idle(false);
    }

    /// Returns when the node stops: for one that is idle in the middle of a request, as it waits for what may never come.
    pub(crate) async fn asked_to_leave(&self) {
        let _ = self.guests.stays.recv_async().await;
    }

    fn set_idle(&self, idle: bool) {
        if let Some(entry) = self.guests.present.borrow_mut().get_mut(&self.number)
            && std::mem::replace(&mut entry.idle, idle) != idle
        {
            self.guests.count_under_way(!idle);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let left = self.guests.present.borrow_mut().remove(&self.number);
        if left.is_some_and(|entry| !entry.idle) {
            self.guests.count_under_way(false);
        }
        if self.guests.draining.get() && self.guests.count() == 0 {
            let _ = self.guests.gone.0.try_send(());
        }
    }
}
