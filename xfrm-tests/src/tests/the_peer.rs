//! Stock peers among themselves: that the oracles work before they are asked.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use crate::lab::agent::SECRETS;
use crate::lab::{Connection, FAMILIES, Implementation, Kind, Lab, Order, Release, until};

pub(super) const ALL: &[Test] = &[
    Test::new("peer::strongswan_meets_strongswan", 2, |lab| {
        meet(lab, [Implementation::Strongswan(Release::Stable); 2])
    }),
    Test::new("peer::the_newest_strongswan_meets_libreswan", 2, |lab| {
        meet(lab, [Implementation::Strongswan(Release::Testing), Implementation::Libreswan])
    }),
];

/// The first one begins.
fn meet(lab: &mut Lab, implementations: [Implementation; 2]) -> Result<()> {
    let [a, b] = lab.all();
    let [ours, theirs] = [implementations[0].start(&a)?, implementations[1].start(&b)?];
    println!("{} with {}", ours.version()?, theirs.version()?);
    let both = |from, to| FAMILIES.map(|family| Connection::between(from, to, family, SECRETS[0]));
    ours.load(&both(&a, &b))?;
    theirs.load(&both(&b, &a))?;
    let capture = lab.capture(&a)?;
    for family in FAMILIES {
        // Neighbours are found first: unicast neighbour discovery matches strongSwan's policies.
        ensure!(a.ping(&b, family, 1)? == 1, "clear by {family:?}");
    }
    ours.order(Order::Initiate, "b-v4")?;
    ours.order(Order::Initiate, "b-v6")?;
    until("both children are installed on b", Duration::from_secs(10), || {
        let listed = theirs.list()?;
        let good = listed.iter().filter(|sa| sa.state == "ESTABLISHED" && sa.children == ["INSTALLED"]);
        ensure!(good.count() == 2, "{listed:?}");
        Ok::<_, anyhow::Error>(())
    })?;
    let sealed = std::time::SystemTime::now();
    for family in FAMILIES {
        ensure!(a.ping(&b, family, 5)? == 5, "ESP by {family:?}");
    }
    let report = capture.stop()?;
    println!("{report}");
    ensure!(report.count(Kind::Ike) >= 8, "two exchanges for each family: {report}");
    let report = report.since(sealed);
    report.ensure_nothing_clear()?;
    ensure!(report.count(Kind::Esp) == 20, "five pings there and back: {report}");
    let state = a.run("ip xfrm state")?;
    ensure!(state.contains("rfc4106(gcm(aes))") && state.contains("flag esn"), "{state}");
    Ok(())
}
