//! Alerts about hosts whose secret is wrapped by somebody else's key: a and b, watched from a host beside them.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Watch, at, freeze};
use crate::lab::agent::{CONFIG, hostseal};
use crate::lab::prometheus::ShownPart;
use crate::lab::{Lab, exporter};
use crate::scenarios::kms::{order, wrapped_ppk_pair};

/// What becomes of a pair whose one end may not make keys any more.
const OF_THE_PAIR: [&str; 5] = ["Blocked", "Silent", "Negotiating", "KeysNotRenewed", "Problem"];

pub(super) fn all(lab: &mut Lab) -> Result<BTreeSet<String>> {
    let [a, b, observer] = lab.all();
    let members = [a.clone(), b];
    members.iter().try_for_each(exporter::make_group)?;
    let _runners = wrapped_ppk_pair(&members)?;
    let watch = Watch::start(&observer, &members)?;
    watch.healthy(&[ShownPart::Host, ShownPart::Wrapped])?;
    watch.deserves(
        "what is done with the key cannot be recorded",
        [at("AuditLinesMissing", &a)],
        &["Problem"],
        || freeze(&a, true),
        || freeze(&a, false),
    )?;
    let file = a.read(CONFIG)?;
    let reload = |file: &str| {
        a.write(CONFIG, file, 0o644)?;
        hostseal(&a, "reload")?.expect_code(0).map(drop)
    };
    watch.deserves(
        "keys can be made without the KMS for some time",
        [at("KeyMoveUnfinished", &a)],
        &["ConfigDiffers"],
        || {
            let wrapped = "wrapped = true\n";
            let optional = format!("{wrapped}required = false\noptional_until = \"2099-01-01\"\n");
            reload(&file.replace(wrapped, &optional))
        },
        || reload(&file),
    )?;
    watch.deserves(
        "the KMS says nothing that can be used",
        [at("KeyOffline", &a), at("KeyLeaseEnds", &a), at("KeyCut", &a), at("Blocked", &a)],
        &OF_THE_PAIR,
        || order(&a, "garbage"),
        || order(&a, "gives"),
    )?;
    watch.deserves(
        "the KMS denies the key",
        [at("KeyRevoked", &a), at("KeyCut", &a), at("Blocked", &a), at("Problem", &a)],
        &OF_THE_PAIR,
        || order(&a, "denies"),
        || order(&a, "gives"),
    )?;
    Ok(watch.into_shown())
}
