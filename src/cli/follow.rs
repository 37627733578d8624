//! Follows the agent until it has done what it was told.

use std::time::Instant;

use super::client::{AskError, Client};
use super::progress::View;
use crate::observe::Progress;
use crate::observe::status::Status;
use crate::types::RowState;

/// Has the agent tell what changes until `done` or the deadline is over, and shows what is not yet
/// `settled`. Returns the status then: the caller looks whether it is done.
///
/// # Errors
/// The agent is gone or does not answer.
pub(super) fn follow(
    client: &Client,
    mut view: View,
    settled: RowState,
    deadline: Instant,
    mut done: impl FnMut(&Progress) -> bool,
) -> Result<Status, AskError> {
    let mut revision = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let progress = client.follow(revision, left).inspect_err(|_| view.clear())?;
        revision = progress.revision;
        let over = done(&progress) || left.is_zero();
        view.update(progress, settled);
        if over {
            view.clear();
            return client.status();
        }
    }
}
