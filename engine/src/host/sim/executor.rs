//! Tasks of one simulated life: run one at a time, in an order drawn from the seed; time passes only when none can run.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::{Dice, Order};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// How one life of a simulated machine ended.
#[derive(Debug)]
pub enum Life<T> {
    /// Its main task ended, with this.
    Ended(T),
    /// It was cut at the device operation that the settings name: all tasks were dropped.
    Cut,
    /// Its main task waited for something that never came, for [`STUCK_AFTER`] of its time.
    Stuck,
}

/// How long may a life last, in its own time?
pub const STUCK_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The main task's place in the queue; the others have their index.
const MAIN: usize = usize::MAX;

pub(super) struct Executor {
    order: Order,
    dice: RefCell<Dice>,
    tasks: RefCell<Tasks>,
    ready: Arc<Ready>,
    timers: RefCell<BinaryHeap<Reverse<Timer>>>,
    timers_made: Cell<u64>,
    now: Cell<Duration>,
    cut: Cell<bool>,
}

#[derive(Default)]
struct Tasks {
    slots: Vec<(Option<Task>, Arc<Waking>)>,
    free: Vec<usize>,
}

/// Tasks that can run. Shared with wakers, which the language wants to be `Send`.
#[derive(Default)]
struct Ready(Mutex<VecDeque<usize>>);

struct Waking {
    ready: Arc<Ready>,
    task: usize,
    queued: AtomicBool,
}

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.push(self.task);
        }
    }
}

impl Ready {
    fn push(&self, task: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
    }

    fn pop(&self, order: Order, dice: &RefCell<Dice>) -> Option<usize> {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (order, ready.len()) {
            (_, 0 | 1) | (Order::InTurn, _) => ready.pop_front(),
            (Order::Random, length) => ready.swap_remove_back(dice.borrow_mut().index(length)),
        }
    }
}

struct Timer {
    at: Duration,
    number: u64,
    waker: Rc<RefCell<Option<Waker>>>,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl Executor {
    pub(super) fn new(order: Order, dice: Dice) -> Self {
        Self {
            order,
            dice: RefCell::new(dice),
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            timers_made: Cell::new(0),
            now: Cell::new(Duration::ZERO),
            cut: Cell::new(false),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.now.get()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// Ends the life as soon as the task that runs now lets go.
    pub(super) fn cut(&self) {
        self.cut.set(true);
    }

    /// Chance for the executor's own use: what a task draws must not depend on what the disk draws.
    pub(super) fn dice(&self) -> std::cell::RefMut<'_, Dice> {
        self.dice.borrow_mut()
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let index = tasks.free.pop().unwrap_or(tasks.slots.len());
        let waking = Waking { ready: self.ready.clone(), task: index, queued: AtomicBool::new(true) };
        let slot = (Some(Box::pin(task) as Task), Arc::new(waking));
        if index == tasks.slots.len() {
            tasks.slots.push(slot);
        } else {
            tasks.slots[index] = slot;
        }
        self.ready.push(index);
    }

    /// Runs until the main task ends, or the life is cut or stuck. Drops all tasks.
    pub(super) fn run<T>(&self, main: impl Future<Output = T>) -> Life<T> {
        let mut main = pin!(main);
        let waking = Arc::new(Waking { ready: self.ready.clone(), task: MAIN, queued: AtomicBool::new(true) });
        let waker = Waker::from(waking.clone());
        self.ready.push(MAIN);
        let life = loop {
            if self.cut.get() {
                break Life::Cut;
            }
            match self.ready.pop(self.order, &self.dice) {
                Some(MAIN) => {
                    waking.queued.store(false, Ordering::Relaxed);
                    if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                        break if self.cut.get() { Life::Cut } else { Life::Ended(value) };
                    }
                }
                Some(task) => self.poll(task),
                None if self.pass_time() => {}
                None => break Life::Stuck,
            }
        };
        // Futures may wake each other while they are dropped; nothing runs any more.
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
        self.timers.borrow_mut().clear();
        life
    }

    fn poll(&self, index: usize) {
        let (mut task, waking) = {
            let slot = &mut self.tasks.borrow_mut().slots[index];
            // Woken after its end.
            let Some(task) = slot.0.take() else { return };
            (task, slot.1.clone())
        };
        waking.queued.store(false, Ordering::Relaxed);
        let outcome = task.as_mut().poll(&mut Context::from_waker(&Waker::from(waking)));
        if outcome.is_ready() {
            // What it drops may wake and spawn.
            drop(task);
            self.tasks.borrow_mut().free.push(index);
        } else {
            self.tasks.borrow_mut().slots[index].0 = Some(task);
        }
    }

    /// Goes to the next time at which a task can run; answers whether there is one.
    fn pass_time(&self) -> bool {
        loop {
            let Some(Reverse(timer)) = self.timers.borrow_mut().pop() else { return false };
            // Empty where whoever slept was dropped.
            if let Some(waker) = timer.waker.take() {
                self.now.set(timer.at.max(self.now.get()));
                waker.wake();
                return self.now.get() < STUCK_AFTER;
            }
        }
    }

    /// Ready at `at`.
    pub(super) fn until(&self, at: Duration) -> Until<'_> {
        Until { executor: self, at, waker: None }
    }
}

pub(super) struct Until<'a> {
    executor: &'a Executor,
    at: Duration,
    waker: Option<Rc<RefCell<Option<Waker>>>>,
}

impl Future for Until<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.now.get() >= self.at {
            return Poll::Ready(());
        }
        if let Some(waker) = &self.waker {
            *waker.borrow_mut() = Some(context.waker().clone());
            return Poll::Pending;
        }
        let waker = Rc::new(RefCell::new(Some(context.waker().clone())));
        let number = self.executor.timers_made.get();
        self.executor.timers_made.set(number + 1);
        let timer = Timer { at: self.at, number, waker: waker.clone() };
        self.executor.timers.borrow_mut().push(Reverse(timer));
        self.waker = Some(waker);
        Poll::Pending
    }
}

impl Drop for Until<'_> {
    fn drop(&mut self) {
        if let Some(waker) = &self.waker {
            waker.take();
        }
    }
}
