//! Alerts about a cluster with a roster: a, b, c and d, watched from a host beside them.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::{LIMIT, Watch, all as of_all, at, freeze};
use crate::lab::agent::{hostseal, kill_agent, status_until};
use crate::lab::members::found;
use crate::lab::prometheus::ShownPart;
use crate::lab::{FAMILIES, Family, Host, Lab, Toward, exporter};

struct Members<'l> {
    lab: &'l Lab,
    hosts: [Host; 4],
    watch: Watch,
}

pub(super) fn all(lab: &mut Lab) -> Result<BTreeSet<String>> {
    let members = Members::start(lab)?;
    members.watch.healthy(&[ShownPart::Host, ShownPart::Member])?;
    members.one_is_overridden()?;
    members.one_cannot_write()?;
    members.one_is_away()?;
    members.two_sides()?;
    Ok(members.watch.into_shown())
}

impl<'l> Members<'l> {
    fn start(lab: &'l Lab) -> Result<Self> {
        let [a, b, c, d, observer] = lab.all();
        let hosts = [a, b, c, d];
        // Agents look for the group when they start.
        hosts.iter().try_for_each(exporter::make_group)?;
        found(&hosts)?;
        hostseal(&hosts[0], "enable --cluster --timeout 50s")?.expect_code(0)?;
        for host in &hosts {
            status_until(host, "all is protected", LIMIT, |status| status.all_protected())?;
        }
        let watch = Watch::start(&observer, &hosts)?;
        Ok(Self { lab, hosts, watch })
    }

    /// Its pairs are clear at their other ends, too.
    fn one_is_overridden(&self) -> Result<()> {
        let b = &self.hosts[1];
        self.watch.deserves(
            "an operator wants something else",
            [at("Overridden", b)],
            &["Clear", "Negotiating"],
            || hostseal(b, "disable")?.expect_code(0).map(drop),
            || hostseal(b, "enable --no-wait")?.expect_code(0).map(drop),
        )
    }

    /// It goes by what another one orders, and does not know that any more if it starts anew.
    fn one_cannot_write(&self) -> Result<()> {
        let [a, b, ..] = &self.hosts;
        self.watch.deserves(
            "a member cannot write",
            [at("OrderPending", b), at("Problem", b)],
            &["RosterDiffers", "ConfigDiffers"],
            || {
                freeze(b, true)?;
                hostseal(a, "settings set esp.replay_window=128")?.expect_code(0).map(drop)
            },
            || freeze(b, false),
        )
    }

    /// Somebody who is away is told of an order, and keeps others from being done with their keys.
    fn one_is_away(&self) -> Result<()> {
        let [a, _, c, _] = &self.hosts;
        self.watch.deserves(
            "a member is away",
            [at("AgentDown", c), of_all("NodeUnheard"), of_all("RotationUnfinished")],
            &[],
            || {
                kill_agent(c)?;
                let rotated = hostseal(a, "rotate --partial --no-wait")?;
                ensure!(matches!(rotated.code, 0 | 6), "{rotated:?}");
                Ok(())
            },
            || hostseal(c, "enable --no-wait")?.expect_code(0).map(drop),
        )
    }

    /// The wire is cut between d and the others, and both sides are told different things; then it is whole again.
    fn two_sides(&self) -> Result<()> {
        const OF_PAIRS: [&str; 5] = ["Silent", "Blocked", "Clear", "Negotiating", "Problem"];
        let [a, b, c, d] = &self.hosts;
        self.watch.fires(
            "two sides are told different things",
            [of_all("RosterDiffers"), of_all("NodeUnheard")],
            &OF_PAIRS,
            || {
                for (there, family) in
                    [a, b, c].into_iter().flat_map(|there| FAMILIES.map(|family| (there, family)))
                {
                    let protocol = if family == Family::V4 { "ip" } else { "ipv6" };
                    let of =
                        |end: &str| format!("protocol {protocol} flower {end}_ip {}", there.address(family));
                    self.lab.wire().drop_matching(d, Toward::Wire, &of("dst"))?;
                    self.lab.wire().drop_matching(d, Toward::Host, &of("src"))?;
                }
                hostseal(a, "disable --cluster --timeout 20s")?.expect_code(3)?;
                hostseal(d, "enable --cluster --partial --timeout 20s")?;
                Ok(())
            },
        )?;
        let beside = [&OF_PAIRS[..], &["RosterDiffers", "NodeUnheard"]].concat();
        self.watch.deserves(
            "they hear each other again",
            [of_all("Conflict")],
            &beside,
            || self.lab.wire().pass_all(d),
            // An admin says what counts.
            || hostseal(a, "enable --cluster --timeout 50s")?.expect_code(0).map(drop),
        )
    }
}
