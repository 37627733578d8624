//! Every wait of a pair, with its reason.

use std::time::Duration;

use crate::config::REKEY_PACE;

/// How long an outbound SA stays after the policy moved away from it: packets that hold the old route
/// would be refused with EINVAL (docs/kernel.md, fact 8a).
pub const OUT_GRACE: Duration = Duration::from_secs(1);

/// How long an inbound SA outlives the last packet that the peer can have sent through it: queues and
/// the network.
pub const IN_GRACE: Duration = Duration::from_secs(2);

/// How long after a child was agreed the next may be asked for because it has carried as much as it should: until the
/// SAs of the one before have left. The other end waits longer, or both would ask at the same time.
pub const PACE_LEADER: Duration = REKEY_PACE;
/// See [`PACE_LEADER`].
pub const PACE_OTHER: Duration = Duration::from_millis(3_600);

/// How long clear packets are accepted after both ends send ESP: those still queued or under way
/// (docs/kernel.md, fact 18g).
pub const SEAL_GRACE: Duration = Duration::from_secs(1);

/// The same on a pair on which nothing has come in (`pair::seal`), at least: the peer's last report of its
/// switch to ESP was sent after what it may have sent in the clear just before.
pub const QUIET_GRACE: Duration = Duration::from_millis(20);

/// How long clear packets are accepted after both ends send ESP, on a pair on which nothing has come in: as long as
/// a packet took to the peer and back, which is three times the way of one that its last report has overtaken.
pub fn quiet_grace(round_trip: Duration) -> Duration {
    round_trip.clamp(QUIET_GRACE, SEAL_GRACE)
}

/// How often a probe is sent while nothing is known yet.
pub const PROBE_EVERY: Duration = Duration::from_millis(250);

/// How long what is to be told of a child waits for the peer's first probe or report. The kernel takes ESP apart in
/// another thread, so that a probe comes a moment after what was sent behind it.
pub const PROBE_PATIENCE: Duration = Duration::from_millis(200);

/// How many probes are sent before ESP counts as blocked.
pub const PROBES_PATIENT: u32 = 12;

/// How often a blocked path is tried again.
pub const PROBE_BLOCKED: Duration = Duration::from_secs(10);

/// How long ESP in UDP is waited for, where ESP by itself does not get through, before a pair in the clear counts
/// as one that stays there: as long as the key exchange tries once, and as ESP is tried then.
pub const DETOUR_PATIENCE: Duration = Duration::from_secs(12);

/// How long `disable` waits for the peer to say that it accepts clear packets.
pub const OPEN_PATIENCE: Duration = Duration::from_secs(3);

/// How long the inbound SAs of a peer that this host parts from outlive what the peer says it has sent last: as long as
/// clear packets are accepted after both ends send ESP. Whoever hears of no such word waits for [`IN_GRACE`].
pub const PART_GRACE: Duration = SEAL_GRACE;

/// How long the end that did not initiate a child waits for the other to delete the child before it.
pub const DELETE_PATIENCE: Duration = Duration::from_secs(20);

/// How long both ends may take to agree on the child that they send through before it is asked whether
/// the sessions are still alive at the other end, and how often then.
pub const UNSETTLED_PATIENCE: Duration = Duration::from_secs(5);

/// How long after the end of a trial the kernel removes by itself what an agent has left there: first the
/// guard, which would block what the policies of the pairs let go; then the inbound policies; and then the
/// outbound ones, so that the other end accepts clear packets before they come. A living agent has removed
/// all of them before. Two seconds apart, since the kernel counts whole ones.
pub const TRIAL_GUARD: Duration = Duration::from_secs(1);
/// See [`TRIAL_GUARD`].
pub const TRIAL_IN: Duration = Duration::from_secs(3);
/// See [`TRIAL_GUARD`].
pub const TRIAL_OUT: Duration = Duration::from_secs(5);

/// How long after the end of a trial this end waits for the other to say that it accepts clear packets: until
/// its kernel has let go, should its agent be dead.
pub const TRIAL_PATIENCE: Duration = Duration::from_secs(6);

/// So far the end of a policy may be from where it should be: the kernel counts whole seconds.
pub const LIFETIME_TOLERANCE: Duration = Duration::from_secs(2);

/// How long a peer that a pair was never protected with may take to prove itself before it counts as not there
/// yet: several times as long as it takes one that is.
pub const ABSENCE_PATIENCE: Duration = Duration::from_secs(5);

/// How long after a refused kernel change it is tried again.
pub const KERNEL_RETRY: Duration = Duration::from_secs(1);
