//! What operators deploy hostseal with: the Ansible role, run by Ansible over SSH, and the user-data of cloud-init, run by
//! cloud-init. Only the installation of the package is left out: the program lies in the lab.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::members::{await_cluster, is_protected};
use super::{Traffic, await_sealed};
use crate::lab::agent::{hostseal, status_until};
use crate::lab::members::{found, token};
use crate::lab::{HOSTSEAL, Host, Lab, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("deploy::ansible_makes_a_cluster_and_keeps_it", 4, ansible_makes_a_cluster).within(400),
    Test::new("deploy::cloud_init_joins_a_new_machine", 2, cloud_init_joins),
];

/// A file of the checkout, by its path below `packaging`.
macro_rules! packaged {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!("../../../packaging/", $path)))),*]
    };
}

/// What the control machine has of the checkout.
const PLAYBOOK: [(&str, &str); 9] = packaged![
    "ansible/site.yml",
    "ansible/roles/hostseal/defaults/main.yml",
    "ansible/roles/hostseal/meta/argument_specs.yml",
    "ansible/roles/hostseal/meta/main.yml",
    "ansible/roles/hostseal/tasks/ask.yml",
    "ansible/roles/hostseal/tasks/found.yml",
    "ansible/roles/hostseal/tasks/join.yml",
    "ansible/roles/hostseal/tasks/main.yml",
    "ansible/roles/hostseal/vars/main.yml",
];
/// Where the control machine has it.
const CHECKOUT: &str = "/etc/control";
/// Where the recovery key goes there.
const RECOVERY_KEY: &str = "/etc/control/recovery-key";
/// How long a run of the playbook may take, on a busy machine.
const RUN: Duration = Duration::from_secs(120);

/// A machine that runs the playbook, and is no node.
struct Control(Host);

/// What came of a run.
struct Played {
    /// All that was printed, as much as Ansible ever says.
    said: String,
    code: Option<i32>,
}

impl Control {
    /// Has the files and a key with which it may log in on `nodes`, and these let it in.
    fn new(host: &Host, nodes: &[Host]) -> Result<Self> {
        for (path, text) in PLAYBOOK {
            host.write(&format!("{CHECKOUT}/{path}"), text, 0o644)?;
        }
        host.run(&format!("ssh-keygen -q -t ed25519 -N '' -f {CHECKOUT}/login"))?;
        let login = host.read(&format!("{CHECKOUT}/login.pub"))?;
        host.write(
            &format!("{CHECKOUT}/ansible.cfg"),
            &format!(
                "[defaults]\nhost_key_checking = false\ninterpreter_python = /usr/bin/python3\nlog_path = \
                 {CHECKOUT}/log\nlocal_tmp = /run/control\n[ssh_connection]\npipelining = true\ncontrol_path_dir = \
                 /run/control\nssh_args = -i {CHECKOUT}/login -o ControlMaster=auto -o ControlPersist=60s -o \
                 ConnectTimeout=5\n"
            ),
            0o644,
        )?;
        for node in nodes {
            node.write("/etc/ssh/login.pub", &login, 0o644)?;
            node.run(
                "mkdir -p /run/sshd && ssh-keygen -A && /usr/sbin/sshd -o AuthorizedKeysFile=/etc/ssh/login.pub -o \
                 StrictModes=no -o UsePAM=no -o UseDNS=no -o PidFile=none",
            )?;
        }
        Ok(Self(host.clone()))
    }

    /// Runs the playbook for these nodes, each with what is said of it alone.
    fn play(&self, nodes: &[(&Host, &str)], arguments: &[&str]) -> Result<Played> {
        let mut inventory = format!(
            "[all:vars]\nansible_user=root\nhostseal_cluster=lab\nhostseal_program={HOSTSEAL}\n\
             hostseal_recovery_key_file={RECOVERY_KEY}\n[hostseal]\n"
        );
        for (node, more) in nodes {
            let (name, v4, v6) = (node.name(), node.v4(), node.v6());
            inventory +=
                &format!("{name} ansible_host={v4} hostseal_addresses='[\"{v4}\", \"{v6}\"]' {more}\n");
        }
        self.0.write(&format!("{CHECKOUT}/inventory"), &inventory, 0o644)?;
        let printed = self.0.within(|| fs::File::create("/run/printed"))??;
        let mut command = Command::new("ansible-playbook");
        command.args(["-vvv", "-i", "inventory", "ansible/site.yml"]).args(arguments).current_dir(CHECKOUT);
        let mut run = self.0.spawn(command.stdout(printed.try_clone()?).stderr(printed))?;
        let status = until("the playbook has ended", RUN, || {
            ensure_no_token_in_process_list()?;
            std::thread::sleep(Duration::from_millis(200));
            run.child.try_wait()?.context("it runs")
        });
        let said = self.0.read("/run/printed")?;
        println!("{said}");
        let logged = self.0.read(&format!("{CHECKOUT}/log"))?;
        for secret in ["hostseal1_", "hostseal-recovery"] {
            ensure!(!said.contains(secret) && !logged.contains(secret), "Ansible has told of {secret}…");
        }
        Ok(Played { said, code: status?.code() })
    }
}

impl Played {
    /// Checks that the last line of a host has `words`, such as `changed=0`, and that all went well.
    fn ensure_ended(&self, code: i32, hosts: &[(&Host, &str)]) -> Result<()> {
        ensure!(self.code == Some(code), "the playbook ended with {:?}", self.code);
        for (host, words) in hosts {
            let start = format!("{} ", host.name());
            let recap = self.said.rsplit("PLAY RECAP").next().unwrap_or_default();
            let line =
                recap.lines().find(|line| line.starts_with(&start)).with_context(|| recap.to_owned())?;
            ensure!(line.contains(words), "not {words}: {line}");
        }
        Ok(())
    }
}

/// Checks that no process shows a token among its arguments.
fn ensure_no_token_in_process_list() -> Result<()> {
    for entry in fs::read_dir("/proc")?.flatten() {
        // Only processes have one, and some are gone meanwhile.
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
        let arguments = String::from_utf8_lossy(&arguments);
        ensure!(!arguments.contains("hostseal1_"), "a token stands in the process list: {arguments}");
    }
    Ok(())
}

fn ansible_makes_a_cluster(lab: &mut Lab) -> Result<()> {
    let [a, b, c, d] = lab.all();
    let control = Control::new(&d, &lab.hosts()[..3])?;
    // What would be done is said, and not done.
    let said = control.play(&[(&a, ""), (&b, "")], &["--check"])?;
    said.ensure_ended(0, &[(&a, "changed=1"), (&b, "changed=1")])?;
    ensure!(said.said.contains("a would make the cluster lab") && said.said.contains("b would join"));
    ensure!(!a.succeeds("test -e /var/lib/hostseal")? && !d.succeeds(&format!("test -e {RECOVERY_KEY}"))?);

    let traffic = Traffic::start(&a, &b, 100)?;
    control.play(&[(&a, ""), (&b, "")], &[])?.ensure_ended(0, &[(&a, "failed=0"), (&b, "failed=0")])?;
    await_cluster(&a, "both are protected", |status| is_protected(status, 2))?;
    [&a, &b].into_iter().try_for_each(await_sealed)?;
    traffic.ensure_complete()?;
    let key = d.run(&format!("stat -c %a {RECOVERY_KEY} && cat {RECOVERY_KEY}"))?;
    ensure!(key.starts_with("600\nhostseal-recovery"), "{key}");

    // One is dead and goes, one comes.
    for process in b.processes()? {
        kill(process, Signal::SIGKILL)?;
    }
    let nodes = [(&a, ""), (&b, "hostseal_state=absent"), (&c, "")];
    control.play(&nodes, &[])?.ensure_ended(0, &[(&a, "changed=0"), (&b, "changed=1"), (&c, "failed=0")])?;
    await_cluster(&c, "both are protected", |status| is_protected(status, 2))?;
    control.play(&nodes, &[])?.ensure_ended(0, &[(&a, "changed=0"), (&b, "changed=0"), (&c, "changed=0")])?;

    // Whoever does not know the cluster's admins makes no second one.
    let refused = control.play(&nodes, &["-e", r#"{"hostseal_admins": ["nobody"]}"#])?;
    refused.ensure_ended(2, &[(&a, "changed=0"), (&c, "changed=0")])?;
    ensure!(refused.said.contains("this host is in a cluster, and none of hostseal_admins (nobody) is"));
    Ok(())
}

/// The user-data of the checkout, whose last line is to be a token.
const USER_DATA: &str = include_str!("../../../packaging/cloud-init/user-data");
/// Which modules run: those of the user-data, but for the one that installs packages.
const MODULES: &str = "datasource_list: [NoCloud]\nnetwork: {config: disabled}\ncloud_init_modules: [write_files]\n\
                       cloud_config_modules: [runcmd]\ncloud_final_modules: [scripts_user]\n";

fn cloud_init_joins(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    found(std::slice::from_ref(&a))?;
    hostseal(&a, "enable --cluster --timeout 50s")?;
    // As docs/deployment.md does.
    let data = format!("{USER_DATA}      {}\n", token(&a, "b --ttl 15m")?);
    let seed = "/var/lib/cloud/seed/nocloud";
    b.write(&format!("{seed}/user-data"), &data, 0o600)?;
    b.write(&format!("{seed}/meta-data"), "instance-id: b\n", 0o644)?;
    b.write("/etc/cloud/cloud.cfg.d/99_lab.cfg", MODULES, 0o644)?;
    b.run(&format!("cloud-init schema --config-file {seed}/user-data"))?;
    // Of what lies outside a host's own directories, it writes its log.
    b.run("mount -t tmpfs log /var/log")?;
    for stage in ["init --local", "init", "modules --mode config", "modules --mode final"] {
        b.run(&format!("cloud-init {stage}"))
            .with_context(|| b.read("/var/log/cloud-init.log").unwrap_or_default())?;
    }
    status_until(&b, "every pair is protected", RUN, |status| status.all_protected())?;
    await_cluster(&a, "both are protected", |status| is_protected(status, 2))?;
    // cloud-init keeps all user-data on the disk, for root alone; nothing else is left of the token.
    let kept = b.run("grep -rl hostseal1_ /etc /run /var --exclude-dir=.lab | xargs stat -c '%a %n'")?;
    println!("{kept}");
    ensure!(kept.contains("/var/lib/cloud/") && !kept.contains("/run/hostseal-token"), "{kept}");
    ensure!(kept.lines().all(|line| line.starts_with("600 ") || line.starts_with("400 ")), "{kept}");
    Ok(())
}
