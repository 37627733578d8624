//! A thread that does beside the loop what takes its time, so that a slow disk keeps nobody waiting. It has descriptors
//! set aside for that.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};
use std::thread;

use tokio::sync::Notify;

use super::descriptors::Reserve;

/// What the thread's calls need: its memory is locked.
const STACK: usize = 256 << 10;

/// Something to write, and what comes of it.
type Job<T> = Box<dyn FnOnce() -> T + Send>;

/// Has things written one after the other; what comes of each is a `T`.
pub(super) struct Writer<T> {
    jobs: Sender<Job<T>>,
    outcomes: Receiver<T>,
    woken: Arc<Notify>,
}

impl<T: Send + 'static> Writer<T> {
    /// Starts the thread: what this one has given up, that one has too.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn start(name: &str) -> io::Result<Self> {
        let (jobs, todo) = channel::<Job<T>>();
        let (done, outcomes) = channel();
        let woken = Arc::new(Notify::new());
        let wakes = Arc::clone(&woken);
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let mut reserve = Reserve::new();
        thread.spawn(move || {
            for job in todo {
                slow_down();
                if done.send(reserve.lend(job)).is_err() {
                    return;
                }
                wakes.notify_one();
            }
        })?;
        Ok(Self { jobs, outcomes, woken })
    }

    /// Has something written after the write that is under way.
    pub(super) fn begin(&self, job: impl FnOnce() -> T + Send + 'static) {
        // The thread lives as long as this.
        let _ = self.jobs.send(Box::new(job));
    }

    /// What came of the oldest that was begun, once it is over.
    pub(super) async fn outcome(&self) -> T {
        loop {
            if let Ok(outcome) = self.outcomes.try_recv() {
                return outcome;
            }
            self.woken.notified().await;
        }
    }

    /// The same for whom nothing else is to be done meanwhile. Something must have been begun.
    ///
    /// # Errors
    /// The thread is gone.
    pub(super) fn wait(&self) -> Result<T, RecvError> {
        self.outcomes.recv()
    }
}

#[cfg(not(feature = "fault-injection"))]
fn slow_down() {}

/// For tests: each write takes so many milliseconds more.
#[cfg(feature = "fault-injection")]
fn slow_down() {
    let delay = std::fs::read_to_string("/run/hostseal-slow-disk").ok();
    if let Some(delay) = delay.and_then(|text| text.trim().parse().ok()) {
        thread::sleep(std::time::Duration::from_millis(delay));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_begun_keeps_nobody_waiting_and_ends_in_turn() {
        let writer = Writer::start("test").unwrap();
        let (go, gate) = channel::<()>();
        writer.begin(move || {
            gate.recv().unwrap();
            1
        });
        writer.begin(|| 2);
        assert!(writer.outcomes.try_recv().is_err(), "the first one waits");
        go.send(()).unwrap();
        assert_eq!((writer.outcome().await, writer.outcome().await), (1, 2));
        writer.begin(|| 3);
        assert_eq!(writer.wait(), Ok(3));
    }
}
