//! Stock peers that do not have the post-quantum preshared key of hostseal, or another one.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::course::{Course, Way, with_ppk};
use crate::lab::agent::{SECRETS, hostseal, status_until};
use crate::lab::{Lab, PpkOfEnd};
use crate::scenarios::reload::give;

/// The row says what is wrong as long as one is required, and the two go on without one where none is.
pub(super) fn differs(lab: &mut Lab, course: Course) -> Result<()> {
    let ends = Course { way: Way::Ppk, ..course }.prepare(lab)?;
    let ppk = |id: &str, key: Option<&str>| PpkOfEnd {
        id: id.to_owned(),
        key: key.map(str::to_owned),
        required: false,
        early: false,
    };
    let load = |ppk: Option<PpkOfEnd>| ends.peer.load(&[ends.connection.clone().ppk(ppk)]);
    load(None)?;
    hostseal(&ends.ours, "enable --no-wait")?.expect_code(0)?;
    // A peer that answers says no more than AUTHENTICATION_FAILED to another key.
    for (theirs, code) in [(None, "ppk_missing"), (Some(ppk("lab-1", Some(SECRETS[0]))), "auth_failed")] {
        load(theirs)?;
        status_until(&ends.ours, &format!("the row says {code}"), Duration::from_secs(120), |status| {
            status.at("/peers/0/reason_code") == code && status.at("/peers/0/state") != "protected"
        })?;
    }
    // It says that it has PPKs, and does not know the one that we name.
    load(Some(ppk("lab-2", None)))?;
    let cluster = with_ppk(ends.sites.cluster(), &ends.ours, &ppk("lab-2", Some(SECRETS[1])))?;
    give(&cluster, &ends.ours)?;
    let status = status_until(&ends.ours, "protected without one", Duration::from_secs(120), |status| {
        status.all_protected() && status.at("/peers/0/ppk") == "none"
    })?;
    let problems = status.at("/problems").to_string();
    ensure!(problems.contains("ppk_optional"), "{problems}");
    Ok(())
}
