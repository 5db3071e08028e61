//! A bounded queue to one sink in which the newest entry wins.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::report::Tally;

/// A queue that never holds up whoever fills it: where it is full, the oldest entry makes room and is counted as lost.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    /// For a sink that waits on a thread of its own.
    filled: Condvar,
    /// For a sink that waits in a task.
    notify: Notify,
    capacity: usize,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct State<T> {
    entries: VecDeque<T>,
    is_closed: bool,
}

/// What a sink finds that has waited.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<T> {
    /// Every entry, oldest first; at least one.
    Entries(VecDeque<T>),
    /// Nothing has come in time.
    Nothing,
    /// Nothing is left and nothing more will come.
    End,
}

impl<T> Queue<T> {
    /// An empty queue for at most `capacity` entries.
    pub(super) fn new(capacity: usize, tally: Arc<Tally>) -> Self {
        let state = State { entries: VecDeque::new(), is_closed: false };
        Queue { state: Mutex::new(state), filled: Condvar::new(), notify: Notify::new(), capacity, tally }
    }

    /// Counts of the sink.
    pub(super) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Adds an entry; the oldest one makes room for it.
    pub(super) fn push(&self, entry: T) {
        self.tally.offer();
        let mut state = self.lock();
        if state.is_closed {
            return self.tally.lose(1);
        }
        if state.entries.len() == self.capacity {
            state.entries.pop_front();
            self.tally.lose(1);
        }
        state.entries.push_back(entry);
        drop(state);
        self.filled.notify_one();
        self.notify.notify_one();
    }

    /// Takes every entry, after a wait of at most `patience` for the first one.
    pub(super) fn take(&self, patience: Duration) -> Next<T> {
        let is_idle = |state: &mut State<T>| state.entries.is_empty() && !state.is_closed;
        let waited = self.filled.wait_timeout_while(self.lock(), patience, is_idle);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut state.entries) {
            entries if !entries.is_empty() => Next::Entries(entries),
            _ if state.is_closed => Next::End,
            _ => Next::Nothing,
        }
    }

    /// Waits for the oldest entry and takes it; `None` once nothing is left and nothing more will come.
    pub(super) async fn next(&self) -> Option<T> {
        loop {
            // Interest is registered before the queue is looked at, so no entry is missed in between.
            let notified = self.notify.notified();
            {
                let mut state = self.lock();
                if let Some(entry) = state.entries.pop_front() {
                    return Some(entry);
                }
                if state.is_closed {
                    return None;
                }
            }
            notified.await;
        }
    }

    /// Takes no more entries; those that wait are still given out.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.filled.notify_all();
        self.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every change is one step, so a panic elsewhere leaves the queue whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(capacity: usize) -> Queue<u32> {
        Queue::new(capacity, Arc::new(Tally::new("test")))
    }

    #[test]
    fn the_newest_entries_win_and_the_others_are_counted() {
        let queue = queue(2);
        (0..5).for_each(|entry| queue.push(entry));
        assert_eq!(queue.take(Duration::ZERO), Next::Entries([3, 4].into()));
        assert_eq!(queue.tally().status().lost, 3);
        assert_eq!(queue.take(Duration::ZERO), Next::Nothing);
        queue.push(5);
        queue.close();
        queue.push(6);
        assert_eq!(queue.take(Duration::ZERO), Next::Entries([5].into()));
        assert_eq!((queue.take(Duration::MAX), queue.tally().status().lost), (Next::End, 4));
    }

    #[tokio::test]
    async fn a_task_gets_what_waits_and_then_the_end() {
        let queue = Arc::new(queue(2));
        queue.push(1);
        assert_eq!(queue.next().await, Some(1));
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { (queue.next().await, queue.next().await) }
        });
        tokio::task::yield_now().await;
        queue.push(2);
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(waiting.await.unwrap(), (Some(2), None));
    }
}
