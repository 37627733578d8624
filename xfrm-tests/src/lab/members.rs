//! Clusters that know their nodes, made as operators make them: `init`, tokens and `join`.

use anyhow::{Context as _, Result, ensure};

use super::agent::{Outcome, hostseal};
use super::host::Host;

/// Founds a cluster on the first of these hosts, and has the others join. The agents run then, and nothing is protected.
///
/// # Errors
/// When a command fails.
pub fn found(hosts: &[Host]) -> Result<()> {
    found_at(hosts, place)
}

/// The same, where each host says by `place` what it is called and where it is.
///
/// # Errors
/// When a command fails.
pub fn found_at(hosts: &[Host], place: fn(&Host) -> String) -> Result<()> {
    let [first, others @ ..] = hosts else { return Ok(()) };
    let founded = hostseal(first, &format!("init lab {}", place(first)))?.expect_code(0)?;
    ensure!(founded.stdout.contains("hostseal-recovery"), "{}", founded.stdout);
    others.iter().try_for_each(|host| join_at(first, host, place).map(drop))
}

/// What a host is called and where it is, as arguments: in the lab all have the name of the machine.
pub fn place(host: &Host) -> String {
    format!("--node {} --address {},{}", host.name(), host.v4(), host.v6())
}

/// The same with the IPv4 address alone.
pub fn place_v4(host: &Host) -> String {
    format!("--node {} --address {}", host.name(), host.v4())
}

/// A new token that `admin` makes, as the command prints it.
///
/// # Errors
/// When it makes none.
pub fn token(admin: &Host, arguments: &str) -> Result<String> {
    let made = hostseal(admin, &format!("token create {arguments}"))?.expect_code(0)?;
    let line = made.stdout.lines().next().context("nothing was printed")?;
    Ok(line.strip_prefix("hostseal join ").with_context(|| line.to_owned())?.to_owned())
}

/// A host joins with a token for its name, which `admin` makes.
///
/// # Errors
/// When it does not.
pub fn join(admin: &Host, host: &Host) -> Result<Outcome> {
    join_at(admin, host, place)
}

fn join_at(admin: &Host, host: &Host, place: fn(&Host) -> String) -> Result<Outcome> {
    let token = token(admin, host.name())?;
    hostseal(host, &format!("join {token} {}", place(host)))?.expect_code(0)
}
