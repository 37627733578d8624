//! Death by appointment, for tests of what the next agent makes of what this one left: only with the feature
//! `fault-injection`, which no release has.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where it stands after how many more operations on the kernel the process dies that does the last of
/// them. Without this file everybody lives.
const FUSE: &str = "/run/hostseal-fuse";

/// One more operation is done. If it was the last, this process ends as in a crash: nothing is cleaned up,
/// written or sent any more.
pub(super) fn burn() {
    let Some(left) = fs::read_to_string(FUSE).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
        return;
    };
    if left > 1 {
        // It shows whoever lit the fuse how far the work is.
        let _ = fs::write(FUSE, (left - 1).to_string());
    } else {
        let _ = fs::remove_file(FUSE);
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}
