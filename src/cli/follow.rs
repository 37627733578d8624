//! Follows the agent until it has done what it was told.

use std::time::{Duration, Instant};

use super::client::{AskError, Client};
use super::progress::Progress;
use crate::model::Status;
use crate::model::status::RowState;

/// The shortest time between two looks.
const INTERVAL: Duration = Duration::from_millis(50);
/// How much longer than a look itself the time between two looks is: with ten thousand pairs, looking must
/// not keep the agent from working.
const RESTRAINT: u32 = 10;

/// Asks again and again until `done` or the deadline is over, and shows what is not yet `settled`. Returns
/// the last status: the caller looks whether it is done.
///
/// # Errors
/// The agent is gone or does not answer.
pub(super) fn follow(
    client: &Client,
    mut progress: Progress,
    settled: RowState,
    deadline: Instant,
    done: impl Fn(&Status) -> bool,
) -> Result<Status, AskError> {
    loop {
        let asked = Instant::now();
        let status = client.status().inspect_err(|_| progress.clear())?;
        progress.update(&status, settled);
        if done(&status) || Instant::now() >= deadline {
            progress.clear();
            return Ok(status);
        }
        let pause = (asked.elapsed() * RESTRAINT).max(INTERVAL);
        std::thread::sleep(pause.min(deadline.saturating_duration_since(Instant::now())));
    }
}
