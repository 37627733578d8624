//! How long the agent's log may become.

use anyhow::{Result, ensure};

use super::{LOG, await_logged};
use crate::lab::agent::hostseal;
use crate::lab::{Cluster, Lab};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[Test::new("logs::a_file_is_bounded", 1, a_file_is_bounded)];

fn a_file_is_bounded(lab: &mut Lab) -> Result<()> {
    let [a] = lab.all();
    Cluster::of_v4(lab.hosts()).install_all(lab.hosts())?;
    a.run(&format!("mkdir -p /run/hostseal && truncate -s 9M {LOG} && chmod 0600 {LOG}"))?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;
    await_logged(&a, "something", |line| line.contains("listening on"))?;
    let sizes = a.run(&format!("stat -c '%s %a' {LOG}.1 {LOG}"))?;
    let mut sizes = sizes.lines().map(str::to_owned);
    ensure!(sizes.next().as_deref() == Some("9437184 600"), "the old one is kept");
    let new = sizes.next().unwrap_or_default();
    ensure!(new.ends_with(" 600") && new.len() < "100000 600".len(), "{new}");
    Ok(())
}
