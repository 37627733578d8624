//! Stock peers that do not have the post-quantum preshared key (RFC 8784) of hostseal, or another one.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::course::{Course, Way, with_ppk};
use crate::lab::agent::{SECRETS, hostseal, status_until};
use crate::lab::{Lab, PpkOfBoth};
use crate::scenarios::reload::give;

/// The row says what is wrong as long as one is required, and the two go on without one where none is.
pub(super) fn differs(lab: &mut Lab, course: Course) -> Result<()> {
    let ends = Course { way: Way::Ppk, ..course }.prepare(lab)?;
    let ppk = |id: &str, key: &str| PpkOfBoth { id: id.to_owned(), key: key.to_owned(), required: false };
    let load = |ppk: Option<PpkOfBoth>| ends.peer.load(&[ends.connection.clone().ppk(ppk)]);
    load(None)?;
    hostseal(&ends.ours, "enable --no-wait")?.expect_code(0)?;
    // A peer that answers says no more than AUTHENTICATION_FAILED to another key.
    for (theirs, code) in [(None, "ppk_missing"), (Some(ppk("lab-1", SECRETS[0])), "auth_failed")] {
        load(theirs)?;
        status_until(&ends.ours, &format!("the row says {code}"), Duration::from_secs(120), |status| {
            status.at("/peers/0/reason_code") == code && status.at("/peers/0/state") != "protected"
        })?;
    }
    load(None)?;
    let cluster = with_ppk(ends.sites.cluster(), &ends.ours, &ppk("lab-2", SECRETS[1]))?;
    give(&cluster, &ends.ours)?;
    let status = status_until(&ends.ours, "protected without one", Duration::from_secs(120), |status| {
        status.all_protected() && status.at("/peers/0/ppk") == "none"
    })?;
    let problems = status.at("/problems").to_string();
    ensure!(problems.contains("ppk_optional"), "{problems}");
    Ok(())
}
