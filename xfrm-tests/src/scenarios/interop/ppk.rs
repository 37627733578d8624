//! Stock peers that do not have the post-quantum preshared key of hostseal, or another one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::course::{Course, Ends, OTHER_PPK_ID, PPK_ID, Way, with_ppk};
use crate::lab::agent::{SECRETS, Status, hostseal, status};
use crate::lab::{Lab, Order, PpkOfEnd, until};
use crate::scenarios::reload::give;
use crate::scenarios::strongswan::Role;

/// How long a row may take to say what is wrong: an end that answers begins by itself only after a while.
const LIMIT: Duration = Duration::from_secs(120);

/// What the peer has, which would go on without, in the place of the PPK that we require.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// Nothing.
    None,
    /// Another key that is called the same.
    OtherKey,
    /// The same key, called otherwise.
    OtherName,
}

const ALL: [Has; 3] = [Has::None, Has::OtherKey, Has::OtherName];

impl Has {
    fn ppk(self, early: bool) -> Option<PpkOfEnd> {
        let (id, key) = match self {
            Self::None => return None,
            Self::OtherKey => (PPK_ID, SECRETS[0]),
            Self::OtherName => (OTHER_PPK_ID, SECRETS[1]),
        };
        Some(PpkOfEnd { id: id.to_owned(), key: Some(key.to_owned()), required: false, early })
    }

    /// What our row says.
    fn code(self, course: Course) -> &'static str {
        match (self, course.role) {
            (Self::None, _) => "ppk_missing",
            // It names its PPK and shows that it has it.
            (Self::OtherKey, Role::Responder) => "ppk_wrong",
            (Self::OtherName, Role::Responder) => "ppk_unknown",
            // RFC 9867 section 3.1: it has none of those that we show, and goes on without.
            _ if course.way.is_early() => "ppk_missing",
            // A peer that answers says no more than AUTHENTICATION_FAILED.
            _ => "auth_failed",
        }
    }
}

/// The row says what is wrong as long as a PPK is required here, and the two go on without where none is. Gives back what
/// the row has said.
///
/// # Errors
/// When it says something else, or nothing.
pub fn differs(lab: &Lab, course: Course) -> Result<[&'static str; 3]> {
    let early = course.way.is_early();
    let of = |ways: [Way; 2]| Course { way: ways[usize::from(early)], ..course };
    let ends = of([Way::Ppk, Way::EarlyPpk]).prepare(lab)?;
    load(&ends, None)?;
    hostseal(&ends.ours, "enable --no-wait")?.expect_code(0)?;
    let codes = ALL.map(|has| has.code(course));
    for (has, code) in ALL.into_iter().zip(codes) {
        load(&ends, has.ppk(early))?;
        await_row(&ends, &format!("{has:?}: the row says {code}"), |status| {
            status.at("/peers/0/reason_code") == code && status.at("/peers/0/state") != "protected"
        })?;
    }
    // Both say that they have PPKs, and have none in common.
    let [own, theirs] = of([Way::PpkUnknown, Way::EarlyPpkUnknown]).ppks().context("there are some")?;
    load(&ends, Some(theirs))?;
    give(&with_ppk(ends.sites.cluster(), &ends.ours, &own)?, &ends.ours)?;
    let status = await_row(&ends, "protected without one", |status| {
        status.all_protected() && status.at("/peers/0/ppk") == "none"
    })?;
    let problems = status.at("/problems").to_string();
    ensure!(problems.contains("ppk_optional"), "{problems}");
    Ok(codes)
}

fn load(ends: &Ends, ppk: Option<PpkOfEnd>) -> Result<()> {
    ends.peer.load(&[ends.connection.clone().ppk(ppk)])
}

/// Waits until our status is so. Where it is the peer that begins, it does so again and again.
fn await_row(ends: &Ends, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<Status> {
    until(what, LIMIT, || {
        if ends.course.role == Role::Responder {
            // That it is refused is what is looked for.
            let _ = ends.peer.order(Order::Initiate, &ends.connection.name);
        }
        let status = status(&ends.ours)?;
        ensure!(wanted(&status), "{:#}", status.at("/peers"));
        Ok::<_, anyhow::Error>(status)
    })
}
