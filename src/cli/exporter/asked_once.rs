//! What is found out once for all who want to know it at the moment.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_local;

/// Something that takes a while to find out, and serves all who ask meanwhile and for a while after.
pub(super) struct AskedOnce<T> {
    /// For how long it serves others.
    fresh: Duration,
    last: watch::Sender<LastFound<T>>,
}

/// How far that is.
#[derive(Debug)]
enum LastFound<T> {
    /// Nobody has asked yet.
    Nothing,
    /// It is being found out.
    Asking,
    /// What was found, and when.
    At(Instant, T),
}

impl<T> LastFound<T> {
    fn is_old(&self, fresh: Duration) -> bool {
        match self {
            LastFound::Nothing => true,
            LastFound::Asking => false,
            LastFound::At(at, _) => at.elapsed() >= fresh,
        }
    }
}

impl<T: Clone + 'static> AskedOnce<T> {
    pub(super) fn new(fresh: Duration) -> Rc<Self> {
        Rc::new(Self { fresh, last: watch::Sender::new(LastFound::Nothing) })
    }

    /// What is known, or what `find` finds where that is not fresh. Those who come meanwhile are served by the same.
    /// `None` where it came to nothing.
    pub(super) async fn get(self: &Rc<Self>, find: impl Future<Output = T> + 'static) -> Option<T> {
        let mut last = self.last.subscribe();
        if self.last.borrow().is_old(self.fresh) {
            self.last.send_replace(LastFound::Asking);
            // It belongs to none of them: whoever goes meanwhile takes the answer from nobody.
            let this = self.clone();
            spawn_local(async move {
                let found = find.await;
                this.last.send_replace(LastFound::At(Instant::now(), found));
            });
        }
        match last.wait_for(|last| matches!(last, LastFound::At(..))).await.as_deref() {
            Ok(LastFound::At(_, found)) => Some(found.clone()),
            _ => None,
        }
    }
}
