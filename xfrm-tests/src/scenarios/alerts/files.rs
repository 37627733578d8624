//! Alerts about a cluster of files: a, b and c, watched from a host beside them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{LIMIT, Watch, all as of_all, at};
use crate::lab::agent::{CONFIG, SECRET, SECRETS, hostseal, hostseal_all, kill_agent, status, status_until};
use crate::lab::exporter::{self, PORT};
use crate::lab::host::Process;
use crate::lab::prometheus::ShownPart;
use crate::lab::{Cluster, Host, Lab, Toward, until};
use crate::scenarios::kms::talk;

/// What cheats as the exporter of a newer host, and as node_exporter.
const DOUBLE: &str = "/run/double";
/// What the textfile collector reads.
const TEXTFILE: &str = "/run/textfile/hostseal.prom";

struct Files<'l> {
    lab: &'l Lab,
    members: [Host; 3],
    observer: Host,
    watch: Watch,
    cluster: Cluster,
}

/// Those that the suite has.
pub(super) fn few(lab: &mut Lab) -> Result<()> {
    let files = Files::start(lab)?;
    files.enable_all()?;
    files.watch.healthy(&[ShownPart::Host])?;
    files.agent_hangs()?;
    files.exporter_is_gone()?;
    files.file_differs()?;
    files.keys_are_taken()
}

/// All of them.
pub(super) fn all(lab: &mut Lab) -> Result<BTreeSet<String>> {
    let files = Files::start(lab)?;
    files.one_is_waited_for()?;
    files.enable_all()?;
    files.watch.healthy(&[ShownPart::Host])?;
    files.agent_hangs()?;
    files.exporter_is_gone()?;
    files.file_differs()?;
    files.secret_differs()?;
    files.keys_are_taken()?;
    files.there_is_a_hole()?;
    files.peer_falls_silent()?;
    files.textfile_is_old()?;
    files.version_differs()?;
    files.keys_are_about_to_end()?;
    files.keys_are_not_renewed()?;
    files.somebody_forges()?;
    Ok(files.watch.into_shown())
}

impl<'l> Files<'l> {
    /// The hosts have their files and exporters, and no agents.
    fn start(lab: &'l Lab) -> Result<Self> {
        let [a, b, c, observer] = lab.all();
        let members = [a, b, c];
        members.iter().try_for_each(exporter::make_group)?;
        let cluster = Cluster::of_v4(&members);
        cluster.install_all(&members)?;
        // Nobody has enabled these hosts, and their exporters know that: no alert is due.
        let watch = Watch::start(&observer, &members)?;
        watch.prometheus.until_calm(LIMIT)?;
        Ok(Self { lab, members, observer, watch, cluster })
    }

    fn enable_all(&self) -> Result<()> {
        enable(&self.members)?;
        self.members.iter().try_for_each(|host| {
            status_until(host, "all is protected", LIMIT, |status| status.all_protected()).map(drop)
        })
    }

    /// Has hosts run by what `cluster` says.
    fn reload(&self, hosts: &[Host], cluster: &Cluster) -> Result<()> {
        hosts.iter().try_for_each(|host| host.write(CONFIG, &cluster.text(), 0o644))?;
        hostseal_all(hosts, "reload")?.into_iter().try_for_each(|outcome| outcome.expect_code(0).map(drop))
    }

    /// c has no agent yet.
    fn one_is_waited_for(&self) -> Result<()> {
        let [a, b, _] = &self.members;
        let begun = self.members[..2].to_vec();
        let of_both = |alert| [at(alert, a), at(alert, b)];
        let [[one, other], [third, fourth]] = ["Negotiating", "Clear"].map(of_both);
        self.watch.fires("c is waited for", [one, other, third, fourth], &[], || enable(&begun))?;
        // The other alert goes on until Prometheus has asked again.
        self.watch.deserves(
            "that is allowed",
            of_both("ClearPreferred"),
            &["Clear", "ConfigDiffers"],
            || self.reload(&self.members[..2], &self.cluster.clone().with("protection", "mode = \"prefer\"")),
            || {
                self.reload(&self.members[..2], &self.cluster)?;
                self.enable_all()
            },
        )
    }

    fn agent_hangs(&self) -> Result<()> {
        let b = &self.members[1];
        let agent = status(b)?.agent()?;
        self.watch.deserves(
            "an agent hangs",
            [at("AgentDown", b)],
            &[],
            || Ok(kill(agent, Signal::SIGSTOP)?),
            || Ok(kill(agent, Signal::SIGCONT)?),
        )
    }

    fn exporter_is_gone(&self) -> Result<()> {
        let b = &self.members[1];
        self.watch.deserves(
            "an exporter is gone",
            [at("ExporterDown", b)],
            &[],
            || {
                self.watch.stop_exporter(b);
                Ok(())
            },
            || self.watch.start_exporter(b),
        )
    }

    fn file_differs(&self) -> Result<()> {
        let c = &self.members[2..];
        self.watch.deserves(
            "a host has another file",
            [of_all("ConfigDiffers")],
            &[],
            || self.reload(c, &self.cluster.clone().with("keying", "expire_after = \"23h\"")),
            || self.reload(c, &self.cluster),
        )
    }

    fn secret_differs(&self) -> Result<()> {
        const PREVIOUS: &str = "/etc/hostseal/secret.previous";
        let b = &self.members[1];
        self.watch.deserves(
            "a rotation has begun",
            // Where its files lie is each host's own affair.
            [of_all("SecretDiffers")],
            &[],
            || {
                b.write(SECRET, &format!("{}\n", SECRETS[1]), 0o600)?;
                b.write(PREVIOUS, &format!("{}\n", SECRETS[0]), 0o600)?;
                let begun = self.cluster.clone().with("secret", &format!("previous_file = \"{PREVIOUS}\""));
                self.reload(std::slice::from_ref(b), &begun)
            },
            || {
                b.write(SECRET, &format!("{}\n", SECRETS[0]), 0o600)?;
                self.reload(std::slice::from_ref(b), &self.cluster)
            },
        )
    }

    /// Somebody takes the keys of a pair away, and the other end is not there to make new ones.
    fn keys_are_taken(&self) -> Result<()> {
        let [_, b, c] = &self.members;
        let agent = status(c)?.agent()?;
        self.watch.deserves(
            "keys are taken",
            [at("Blocked", b), at("AgentDown", c)],
            &["Negotiating"],
            || {
                kill(agent, Signal::SIGSTOP)?;
                for (source, target) in [(b, c), (c, b)] {
                    b.run(&format!("ip xfrm state deleteall src {} dst {}", source.v4(), target.v4()))?;
                }
                Ok(())
            },
            || Ok(kill(agent, Signal::SIGCONT)?),
        )
    }

    fn there_is_a_hole(&self) -> Result<()> {
        let a = &self.members[0];
        let hole =
            |word: &str| a.run(&format!("sysctl -qw net.ipv4.conf.eth0.disable_xfrm={word}")).map(drop);
        self.watch.deserves("there is a hole", [at("Problem", a)], &["Clear"], || hole("1"), || hole("0"))
    }

    /// Nothing passes between a and b, and each goes on talking. Whoever hears nothing tries to agree new keys, and cannot
    /// (`keys_not_renewed`).
    fn peer_falls_silent(&self) -> Result<()> {
        let [a, b, _] = &self.members;
        let _talks = [talk(a, b)?, talk(b, a)?];
        self.watch.deserves(
            "peers fall silent",
            [at("Silent", a), at("Silent", b)],
            &["Problem"],
            || {
                let of = |end: &str| format!("protocol ip flower {end}_ip {}", b.v4());
                self.lab.wire().drop_matching(a, Toward::Wire, &of("dst"))?;
                self.lab.wire().drop_matching(a, Toward::Host, &of("src"))
            },
            || self.lab.wire().pass_all(a),
        )
    }

    /// Agents cannot talk to each other, and packets flow.
    fn keys_are_not_renewed(&self) -> Result<()> {
        let [a, b, _] = &self.members;
        let soon = self.cluster.clone().with("keying", "rekey_after = \"10s\"");
        self.reload(&self.members, &soon)?;
        self.watch.prometheus.until_calm(LIMIT)?;
        let _talks = [talk(a, b)?, talk(b, a)?];
        self.watch.deserves(
            "keys are not renewed",
            [at("KeysNotRenewed", a), at("KeysNotRenewed", b), at("Problem", a)],
            &["Problem"],
            || {
                for (host, other) in [(a, b), (b, a)] {
                    for port in [500, 4500] {
                        let ike =
                            format!("protocol ip flower ip_proto udp dst_ip {} dst_port {port}", other.v4());
                        self.lab.wire().drop_matching(host, Toward::Wire, &ike)?;
                    }
                }
                Ok(())
            },
            || {
                [a, b].into_iter().try_for_each(|host| self.lab.wire().pass_all(host))?;
                self.reload(&self.members, &self.cluster)
            },
        )
    }

    fn keys_are_about_to_end(&self) -> Result<()> {
        let b = &self.members[1];
        self.reload(&self.members, &self.cluster.clone().with("keying", "expire_after = \"90m\""))?;
        until("all keys end within two hours", LIMIT, || {
            let left =
                self.watch.prometheus.value("max(hostseal_earliest_expiry_timestamp_seconds - time())")?;
            ensure!(left < 7200.0, "{left}");
            Ok::<_, anyhow::Error>(())
        })?;
        self.watch.prometheus.until_calm(LIMIT)?;
        self.watch.deserves(
            "an agent is dead whose keys end soon",
            [at("AgentDown", b), at("AgentDownKeysEnd", b)],
            &[],
            || kill_agent(b),
            || {
                hostseal(b, "enable --no-wait")?.expect_code(0)?;
                self.reload(&self.members, &self.cluster)
            },
        )
    }

    /// What node_exporter would say of what `hostseal metrics --out` has written.
    fn textfile_is_old(&self) -> Result<()> {
        let a = &self.members[0];
        a.run(&format!("mkdir -p /run/textfile && {} metrics --out {TEXTFILE}", crate::lab::HOSTSEAL))?;
        let written = a.run(&format!("touch -d -30min {TEXTFILE}; stat -c %Y {TEXTFILE}"))?;
        let page = format!(
            "node_textfile_mtime_seconds{{file=\"{TEXTFILE}\"}} {}\n{}",
            written.trim(),
            a.read(TEXTFILE)?
        );
        let double = self.double(&page)?;
        self.watch.deserves(
            "a textfile is old",
            [at("TextfileOld", &self.observer)],
            &[],
            || self.watch.prometheus.also_ask(Some(&format!("{}:{PORT}", self.observer.v4()))),
            || {
                drop(double);
                self.watch.prometheus.also_ask(None)
            },
        )
    }

    /// There is one version here: what another one would say is made of it.
    fn version_differs(&self) -> Result<()> {
        let page = exporter::scrape(&self.members[0])?.text;
        let line = |line: &str| match line.strip_prefix("hostseal_build_info{") {
            Some(_) => "hostseal_build_info{version=\"0.0.1\"} 1\n".to_owned(),
            None => format!("{line}\n"),
        };
        let double = self.double(&page.lines().map(line).collect::<String>())?;
        self.watch.deserves(
            "a host has another version",
            [of_all("VersionsDiffer")],
            &[],
            || self.watch.prometheus.also_ask(Some(&format!("{}:{PORT}", self.observer.v4()))),
            || {
                drop(double);
                self.watch.prometheus.also_ask(None)
            },
        )
    }

    /// Serves a page on the host beside the cluster.
    fn double(&self, page: &str) -> Result<Process> {
        let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n";
        self.observer.write(DOUBLE, &format!("{head}{page}"), 0o644)?;
        let mut socat = Command::new("socat");
        socat.args([&format!("TCP-LISTEN:{PORT},fork,reuseaddr"), &format!("SYSTEM:cat {DOUBLE}")]);
        let process = self.observer.spawn(socat.stdout(Stdio::null()).stderr(Stdio::null()))?;
        until("the double serves", LIMIT, || exporter::scrape(&self.observer))?;
        Ok(process)
    }

    /// Somebody sends what looks like ESP of b. What has been counted counts for minutes.
    fn somebody_forges(&self) -> Result<()> {
        let [a, b, _] = &self.members;
        let states = a.run(&format!("ip xfrm state list src {} dst {} proto esp", b.v4(), a.v4()))?;
        let spi = states.split_once("spi 0x").and_then(|(_, rest)| rest.split_whitespace().next());
        let spi = u32::from_str_radix(spi.context("a has no SA")?, 16)?;
        self.watch.fires("ESP is forged", [at("IntegrityErrors", a)], &[], || {
            self.observer.within(|| (0..40).try_for_each(|at| forge([b.v4(), a.v4()], spi, at)))?
        })?;
        // The same in all its series.
        let page = exporter::scrape(a)?;
        for sample in
            ["hostseal_errors_total{kind=\"integrity\"}", "hostseal_xfrm_in_state_proto_error_total"]
        {
            ensure!(page.value(sample) >= Some(40.0), "{sample}: {:?}", page.value(sample));
        }
        let pair = page.text.lines().find(|line| {
            line.starts_with("hostseal_pair_errors_total{peer=\"b\"") && line.contains("kind=\"integrity\"")
        });
        ensure!(pair.is_some_and(|line| !line.ends_with(" 0")), "{pair:?}");
        Ok(())
    }
}

/// Wants hosts to be protected, and waits for none. An agent that has no time to answer at first is asked again.
fn enable(hosts: &[Host]) -> Result<()> {
    hosts.iter().try_for_each(|host| {
        until(&format!("{} is enabled", host.name()), LIMIT, || {
            hostseal(host, "enable --no-wait")?.expect_code(0).map(drop)
        })
    })
}

/// A datagram of ESP that nobody has encrypted, with an address that is another's.
fn forge([from, to]: [Ipv4Addr; 2], spi: u32, at: u32) -> Result<()> {
    const ESP: u8 = 50;
    let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, ESP, 0, 0];
    bytes.extend(from.octets());
    bytes.extend(to.octets());
    bytes.extend(spi.to_be_bytes());
    // Ahead of what has come, so that no window refuses it before it is looked at.
    bytes.extend((10_000 + at).to_be_bytes());
    bytes.extend([0x5a; 72]);
    let length = u16::try_from(bytes.len())?.to_be_bytes();
    bytes[2..4].copy_from_slice(&length);
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(nix::libc::IPPROTO_RAW)))?;
    socket.send_to(&bytes, &SockAddr::from(std::net::SocketAddrV4::new(to, 0)))?;
    Ok(())
}
