//! Many hosts that are not there delay nobody.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::agent::{CONFIG, Status, hostseal, hostseal_all, status_until};
use crate::lab::{Cluster, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] =
    &[Test::new("scale::hundreds_of_dead_hosts_delay_nobody", 3, dead_hosts_delay_nobody)];

/// How long the live may take on a busy machine: nobody waits for those that are not there. How soon they are
/// protected is a matter of the simulations.
const SOON: Duration = Duration::from_secs(10);
/// Hosts that the file lists beside, none of which is there.
const DEAD: usize = 400;

fn dead_hosts_delay_nobody(lab: &mut Lab) -> Result<()> {
    let cluster = Cluster::of_v4(lab.hosts());
    cluster.install_all(lab.hosts())?;
    let dead: String = (0..DEAD)
        .map(|at| {
            let address = format!("10.99.{}.{}", 1 + at / 250, 1 + at % 250);
            format!("\n[[nodes]]\nname = \"dead{at}\"\naddresses = [\"{address}\"]\n")
        })
        .collect();
    for host in lab.hosts() {
        host.write(CONFIG, &(cluster.text() + &dead), 0o644)?;
    }
    hostseal_all(lab.hosts(), "enable --no-wait")?
        .into_iter()
        .try_for_each(|it| it.expect_code(0).map(drop))?;
    for host in lab.hosts() {
        live_are_protected(lab, host)?;
    }
    let [a, b, _] = lab.all();
    sleep(Duration::from_secs(1));
    let a = lab.reboot(&a)?;
    hostseal(&a, "guard")?.expect_code(0)?;
    a.network_up()?;
    hostseal_all(std::slice::from_ref(&a), "enable --no-wait")?;
    live_are_protected(lab, &a)?;
    let log = until("the log tells of the dead", Duration::from_secs(60), || {
        let log = b.read("/run/hostseal/agent.log")?;
        ensure!(log.contains(&format!("{DEAD} hosts do not answer: ")), "{log}");
        Ok::<_, anyhow::Error>(log)
    })?;
    println!("{log}");
    ensure!(log.lines().count() < 40, "{} lines", log.lines().count());
    Ok(())
}

fn live_are_protected(lab: &Lab, host: &Host) -> Result<()> {
    let others = lab.hosts().iter().filter(|other| other.name() != host.name());
    let others: Vec<_> = others.map(Host::v4).collect();
    let protected = |status: &Status| {
        let state = |remote| status.peer(remote).map(|row| row.at("/state") == "protected");
        others.iter().all(|remote| state((*remote).into()).unwrap_or(false))
    };
    status_until(host, "the live are protected", SOON, protected).map(drop)
}
