//! `doctor` names what is wrong, says what to do, and changes nothing.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hostseal::observe::doctor::knock;
use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use super::certificates::{Ca, certified};
use super::{seal_all, sealed_pair};
use crate::lab::agent::{CONFIG, SECRET, SECRETS, hostseal, hostseal_all, kill_agent, status, status_until};
use crate::lab::members;
use crate::lab::{Cluster, HOSTSEAL, Host, Lab, Process, Toward, Wire, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("doctor::a_healthy_cluster_is_ok", 3, healthy),
    Test::new("doctor::what_is_wrong_with_this_host_is_named", 2, this_host).within(240),
    Test::new("doctor::an_agent_that_hangs_or_is_dead_is_named", 2, agents),
    Test::new("doctor::what_is_closed_on_the_path_is_named", 2, paths).within(300),
    Test::new("doctor::a_path_that_loses_large_packets_is_measured", 2, narrow),
    Test::new("doctor::hosts_that_never_heard_each_other_are_told_apart", 3, never_heard),
    Test::new("doctor::a_host_without_an_agent_listens", 3, listens),
    Test::new("doctor::each_node_of_a_cluster_says_what_is_wrong_there", 3, cluster),
    Test::new("doctor::differences_between_both_ends_are_named", 2, differences).within(240),
    Test::new("doctor::a_clock_that_is_ten_years_off_is_named", 2, clock_off),
    Test::new("doctor::a_host_without_a_file_or_with_a_broken_one_is_looked_at", 2, files),
];

/// What `doctor` says of a host.
struct Doctor {
    checks: Vec<Value>,
    text: String,
}

impl Doctor {
    /// Runs it, which ends with `code`.
    fn of(host: &Host, arguments: &str, code: i32) -> Result<Self> {
        let started = Instant::now();
        let outcome = hostseal(host, &format!("doctor --json {arguments}"))?;
        println!("{}: doctor {arguments} took {:?}", host.name(), started.elapsed());
        let text = outcome.stdout.clone();
        let outcome = outcome.expect_code(code)?;
        let checks = outcome.json()?["checks"].as_array().cloned().context("no checks")?;
        Ok(Self { checks, text })
    }

    /// The checks of that kind, of this host or of a peer.
    fn named<'d>(&'d self, id: &'d str, node: Option<&'d str>) -> impl Iterator<Item = &'d Value> {
        self.checks.iter().filter(move |check| check["id"] == id && check["node"].as_str() == node)
    }

    /// Checks that one of that kind came out so, and says that.
    fn expect(&self, (id, node): (&str, Option<&str>), result: &str, words: &str) -> Result<()> {
        let says = |check: &Value| {
            check["result"] == result && check["detail"].as_str().is_some_and(|detail| detail.contains(words))
        };
        ensure!(self.named(id, node).any(says), "no {result} {id} of {node:?} says {words:?}: {}", self.text);
        Ok(())
    }

    /// Checks that nothing is wrong or unknown but checks of these kinds.
    fn expect_ok_but(&self, but: &[&str]) -> Result<()> {
        let wrong = self.checks.iter().filter(|it| it["result"] != "ok");
        let mut wrong = wrong.filter(|it| !but.iter().any(|id| it["id"] == *id));
        ensure!(wrong.next().is_none(), "{}", self.text);
        Ok(())
    }
}

/// `doctor` of a host ends with 3, and one check fails and says that.
fn fails(host: &Host, (id, node): (&str, Option<&str>), words: &str) -> Result<()> {
    let doctor = Doctor::of(host, "", 3)?;
    doctor.expect((id, node), "FAIL", words)?;
    // The agent may have found out by itself.
    doctor.expect_ok_but(&[id, if id == "disk" { "state_not_saved" } else { id }])
}

/// Waits until `doctor` ends with that code and says so: the agent finds out by itself what has changed.
fn comes_to(host: &Host, what: &str, code: i32, says: impl Fn(&Doctor) -> Result<()>) -> Result<()> {
    until(what, Duration::from_secs(90), || says(&Doctor::of(host, "", code)?))
}

fn all_is_well(host: &Host) -> Result<()> {
    comes_to(host, "all is well again", 0, |doctor| doctor.expect_ok_but(&[]))
}

fn healthy(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    seal_all(&Cluster::of(hosts), hosts)?;
    let a = &hosts[0];
    let tables = || {
        a.run("ip xfrm state list | grep -c spi; ip xfrm policy list nosock | grep -c index; ip xfrm policy list nosock | sort")
    };
    let before = tables()?;
    let doctor = Doctor::of(a, "", 0)?;
    println!("{}", hostseal(a, "doctor")?.expect_code(0)?.stdout);
    doctor.expect_ok_but(&[])?;
    ensure!(tables()? == before, "nothing has changed");
    for id in ["config", "agent", "kernel_esp", "ports", "hole", "addresses", "disk"] {
        ensure!(doctor.named(id, None).next().is_some(), "{id} is missing: {}", doctor.text);
    }
    for node in ["b", "c"] {
        for id in
            ["pair", "udp_ike", "esp", "udp_nat", "round_trip", "mtu", "config_differs", "version", "clock"]
        {
            ensure!(
                doctor.named(id, Some(node)).next().is_some(),
                "{id} of {node} is missing: {}",
                doctor.text
            );
        }
    }
    let one = Doctor::of(a, "b", 0)?;
    ensure!(one.named("pair", Some("b")).next().is_some() && one.named("pair", Some("c")).next().is_none());
    hostseal(a, "doctor nobody")?.expect_code(2)?;
    Ok(())
}

/// Each in turn on a healthy host, which is healthy again afterwards.
fn this_host(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let other = b.v4();
    for (check, words, wrong, right) in [
        (
            ("hole", None),
            "interface eth0 is a hole: IPv4 packets leave in the clear",
            "sysctl -qw net.ipv4.conf.eth0.disable_xfrm=1".to_owned(),
            "sysctl -qw net.ipv4.conf.eth0.disable_xfrm=0".to_owned(),
        ),
        (
            ("other_ipsec", Some("b")),
            "comes before hostseal's",
            format!("ip xfrm policy add src 0.0.0.0/0 dst {other} proto 6 dport 5999 dir out priority 1"),
            format!("ip xfrm policy delete src 0.0.0.0/0 dst {other} proto 6 dport 5999 dir out"),
        ),
        (
            ("disk", None),
            "are free for",
            "mount -t tmpfs -o size=64k,mode=0700 none /var/lib/hostseal \
             && dd if=/dev/zero of=/var/lib/hostseal/fill bs=4096 2>/dev/null; true"
                .to_owned(),
            "umount /var/lib/hostseal".to_owned(),
        ),
    ] {
        a.run(&wrong)?;
        until(words, Duration::from_secs(90), || fails(&a, check, words))?;
        a.run(&right)?;
        all_is_well(&a)?;
    }
    // The route that b is reached by names a source that no pair has; and beside it an address of nobody's.
    a.run("ip address add 10.99.7.7/32 dev eth0 && ip route replace 10.99.0.0/16 dev eth0 src 10.99.7.7")?;
    comes_to(&a, "the source is named", 3, |doctor| {
        doctor.expect(("unlisted_source", Some("b")), "FAIL", "from 10.99.7.7 (eth0)")?;
        doctor.expect(("unpaired_address", None), "ok", "10.99.7.7")
    })?;
    a.run("ip route replace 10.99.0.0/16 dev eth0 src 10.99.0.1 && ip address del 10.99.7.7/32 dev eth0")?;
    all_is_well(&a)?;
    // Containers behind a bridge, and this host routes for them.
    a.run(
        "ip link add docker0 type bridge && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up",
    )?;
    a.run("sysctl -qw net.ipv4.ip_forward=1")?;
    comes_to(&a, "the containers are named", 0, |doctor| {
        doctor.expect(("forwarded_clear", None), "warn", "docker0")
    })?;
    a.run("sysctl -qw net.ipv4.ip_forward=0 && ip link del docker0")?;
    all_is_well(&a)?;

    a.run("ip address del 10.99.0.1/16 dev eth0")?;
    comes_to(&a, "the address is missed", 3, |doctor| {
        doctor.expect(("addresses", None), "FAIL", "this host does not have 10.99.0.1 now")?;
        doctor.expect(("pair", Some("b")), "FAIL", "does not have 10.99.0.1 now")
    })
}

fn agents(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed_pair(lab)?;
    let agent = status(&a)?.agent()?;
    kill(agent, Signal::SIGSTOP)?;
    let started = Instant::now();
    let doctor = Doctor::of(&a, "", 3)?;
    ensure!(started.elapsed() < Duration::from_secs(30), "it does not wait for the agent");
    doctor.expect(("agent", None), "FAIL", "does not answer within 1s")?;
    doctor.expect(("ports", None), "ok", "UDP 500")?;
    doctor.expect(("pair", Some("b")), "ok", "is protected")?;
    doctor.expect(("esp", Some("b")), "ok", "")?;
    kill(agent, Signal::SIGCONT)?;
    kill_agent(&a)?;
    let doctor = Doctor::of(&a, "", 3)?;
    doctor.expect(("agent", None), "FAIL", "no agent runs to make new keys; the kernel goes on")?;
    doctor.expect(("pair", Some("b")), "ok", "is protected")?;
    // Somebody takes the port that the next agent needs.
    let taken = a.within(|| UdpSocket::bind("0.0.0.0:500"))??;
    let doctor = Doctor::of(&a, "", 3)?;
    doctor.expect(("ports", None), "FAIL", "UDP 500 is held by")?;
    doctor.expect(("ports", None), "ok", "UDP 4500")?;
    drop(taken);
    // And the kernel cannot load the module that IPv6 needs: nothing of ours uses it any more.
    hostseal(&a, "disable --force")?.expect_code(0)?;
    hostseal(&lab.hosts()[1], "disable")?.expect_code(0)?;
    let helper = a.read("/proc/sys/kernel/modprobe")?;
    a.run("modprobe -r esp6 && echo /bin/false > /proc/sys/kernel/modprobe")?;
    let doctor = Doctor::of(&a, "", 3);
    a.run(&format!("echo {} > /proc/sys/kernel/modprobe && modprobe esp6", helper.trim()))?;
    let doctor = doctor?;
    doctor.expect(("kernel_esp", None), "FAIL", "IPv6: the kernel has no ESP: module esp6 is missing")?;
    doctor.expect(("kernel_esp", None), "ok", "IPv4")?;
    Doctor::of(&a, "", 0)?.expect(("agent", None), "ok", "none runs, and protection is off")
}

fn files(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let doctor = Doctor::of(&a, "", 3)?;
    doctor.expect(("config", None), "FAIL", "hostseal.toml: cannot be read")?;
    doctor.expect(("kernel_esp", None), "ok", "IPv4")?;
    let cluster = Cluster::of(lab.hosts());
    seal_all(&cluster, lab.hosts())?;
    a.write(CONFIG, &format!("nonsense = 1\n{}", cluster.text()), 0o644)?;
    let doctor = Doctor::of(&a, "", 3)?;
    doctor.expect(("config", None), "FAIL", "hostseal.toml:1:1")?;
    doctor.expect(("config", None), "FAIL", "stays in force")?;
    doctor.expect(("pair", Some("b")), "ok", "is protected")?;
    // Whoever may not look is told so.
    let outcome = b.output("setpriv --reuid 65534 --clear-groups hostseal doctor --json")?;
    let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
    ensure!(
        outcome.status.code() == Some(5) && text.contains("\"permission\""),
        "{:?} {text}",
        outcome.status
    );
    Ok(())
}

/// Each way in turn, on a pair that is protected and stays so.
fn paths(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    let (a, b) = (hosts[0].clone(), hosts[1].clone());
    seal_all(&Cluster::of_v4(hosts), hosts)?;
    let peer = |id: &'static str| (id, Some("b"));
    for (toward, way) in
        [(Toward::Wire, "from the other host to this one"), (Toward::Host, "from this host to the other")]
    {
        lab.wire().drop_matching(&b, toward, "protocol ip flower ip_proto udp dst_port 4500")?;
        comes_to(&a, "UDP 4500 is closed", 0, |doctor| {
            doctor.expect(peer("udp_nat"), "warn", &format!("UDP 4500 does not get through {way}"))?;
            doctor.expect_ok_but(&["udp_nat"])
        })?;
        lab.wire().pass_all(&b)?;
        lab.wire().drop_matching(&b, toward, "protocol ip flower ip_proto 0x32")?;
        comes_to(&a, "ESP is closed", 3, |doctor| {
            doctor.expect(
                peer("esp"),
                "FAIL",
                &format!("ESP (IP protocol 50) does not get through {way}"),
            )?;
            doctor.expect(peer("udp_ike"), "ok", "gets through in both directions")
        })?;
        lab.wire().pass_all(&b)?;
        all_is_well(&a)?;
    }
    lab.wire().drop_matching(&b, Toward::Wire, "protocol ip flower ip_proto udp dst_port 500")?;
    let doctor = Doctor::of(&a, "", 3)?;
    doctor.expect(peer("udp_ike"), "FAIL", "no answer from 10.99.0.2 on UDP 500")?;
    doctor.expect(peer("pair"), "ok", "is protected")?;
    lab.wire().pass_all(&b)?;
    // One that is off is one that does not answer.
    kill_agent(&b)?;
    let doctor = Doctor::of(&a, "b", 3)?;
    doctor.expect(peer("udp_ike"), "FAIL", "no answer from 10.99.0.2 on UDP 500")?;
    ensure!(doctor.text.contains("start `hostseal doctor --listen` there"), "{}", doctor.text);
    Ok(())
}

/// A bridge in between drops what is larger than 1,300 octets and says nothing.
fn narrow(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    let (a, b) = (&hosts[0], &hosts[1]);
    seal_all(&Cluster::of_v4(hosts), hosts)?;
    Doctor::of(a, "", 0)?.expect(("mtu", Some("b")), "ok", "get through the SA")?;
    lab.wire().host().run(&format!("ip link set {} mtu 1300", Wire::port(b)))?;
    let started = Instant::now();
    let doctor = Doctor::of(a, "", 3)?;
    println!("{:?}", started.elapsed());
    doctor.expect(("mtu", Some("b")), "FAIL", "are lost on the way, and nothing there says so")?;
    let fix = doctor.named("mtu", Some("b")).next().map(|check| check["fix"].to_string()).unwrap_or_default();
    ensure!(fix.contains("ip route replace"), "{fix}");
    doctor.expect_ok_but(&["mtu"])
}

/// What b sends on UDP 500 comes nowhere. c is not there.
fn never_heard(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    Cluster::of_v4(lab.hosts()).install_all(lab.hosts())?;
    lab.wire().drop_matching(&b, Toward::Wire, "protocol ip flower ip_proto udp dst_port 500")?;
    lab.wire().plug(&c, false)?;
    for host in [&a, &b] {
        hostseal(host, "enable --no-wait")?.expect_code(0)?;
    }
    let waits = |host: &Host, other: &Host| {
        status_until(host, "it waits", Duration::from_secs(40), |status| {
            status.peer(other.v4().into()).is_ok_and(|row| row.at("/waiting") == true)
        })
    };
    for (host, other) in [(&a, &b), (&a, &c), (&b, &a)] {
        waits(host, other)?;
    }
    // b hears a, and a does not hear b.
    let knocks = "datagrams in its name come on UDP 500, and it does not answer";
    until("a is named as one that does not hear b", Duration::from_secs(60), || {
        Doctor::of(&b, "a", 3)?.expect(("udp_ike", Some("a")), "FAIL", knocks)
    })?;
    comes_to(&a, "neither answers", 0, |doctor| {
        for node in ["b", "c"] {
            doctor.expect(("udp_ike", Some(node)), "unknown", "and nothing comes from it")?;
            doctor.expect(("pair", Some(node)), "unknown", "no answer")?;
        }
        ensure!(doctor.text.contains("start `hostseal doctor --listen` there"), "{}", doctor.text);
        Ok(())
    })
}

fn differences(lab: &mut Lab) -> Result<()> {
    const SOON: Duration = Duration::from_secs(60);
    let hosts = lab.hosts();
    let (a, b) = (hosts[0].clone(), hosts[1].clone());
    let cluster = Cluster::of_v4(hosts);
    seal_all(&cluster, hosts)?;
    let peer = |id: &'static str| (id, Some("b"));
    let reload = |cluster: &Cluster| -> Result<()> {
        b.write(CONFIG, &cluster.text(), 0o644)?;
        hostseal(&b, "reload")?.expect_code(0).map(drop)
    };
    reload(&cluster.clone().with("keying", "rekey_after = \"50m\""))?;
    until("another file is named", SOON, || {
        Doctor::of(&a, "", 0)?.expect(peer("config_differs"), "warn", "has another configuration")
    })?;
    reload(&cluster)?;
    until("it is the same again", SOON, || Doctor::of(&a, "", 0)?.expect_ok_but(&[]))?;
    b.write(SECRET, &format!("{}\n", SECRETS[1]), 0o600)?;
    reload(&cluster)?;
    until("another secret is named", SOON, || {
        Doctor::of(&a, "", 3)?.expect(
            peer("secret_differs"),
            "FAIL",
            "shares no secret with this host any more",
        )
    })?;
    b.write(SECRET, &format!("{}\n", SECRETS[0]), 0o600)?;
    reload(&cluster)?;
    until("it is the same again", SOON, || Doctor::of(&a, "", 0)?.expect_ok_but(&[]))?;

    // Keys cannot be agreed from the start.
    for host in [&a, &b] {
        hostseal(host, "disable --force")?.expect_code(0)?;
    }
    b.write(SECRET, &format!("{}\n", SECRETS[1]), 0o600)?;
    for outcome in hostseal_all(lab.hosts(), "enable --no-wait")? {
        outcome.expect_code(0)?;
    }
    let words = "have most likely different ones";
    until("the secret is named", SOON, || {
        Doctor::of(&a, "", 3)?.expect(peer("secret_differs"), "FAIL", words)
    })
}

/// The lab has one clock: all hosts are off, and their certificates are over or have not begun.
fn clock_off(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let (ca, cluster) = (Ca::new(1)?, certified(lab));
    for host in [&a, &b] {
        ca.install(&cluster, host, "ed25519", &[host.v4().to_string()])?;
    }
    Doctor::of(&a, "", 0)?.expect(("certificate", None), "ok", "good until")?;
    let off = |years: i32| -> Result<Doctor> {
        let now = a.run("date +%s")?;
        let began = Instant::now();
        let then: i64 = now.trim().parse()?;
        a.run(&format!("date -s @{}", then + i64::from(years) * 365 * 86_400))?;
        let doctor = Doctor::of(&a, "", 3);
        a.run(&format!("date -s @{}", then + i64::try_from(began.elapsed().as_secs())?))?;
        doctor
    };
    off(10)?.expect(("certificate", None), "FAIL", "expired on")?;
    off(-10)?.expect(("certificate", None), "FAIL", "is not valid before")?;
    Doctor::of(&a, "", 0)?.expect(("certificate", None), "ok", "good until").map(drop)
}

/// b has no agent, and somebody listens there; nobody listens on c.
fn listens(lab: &mut Lab) -> Result<()> {
    let [a, b, c] = lab.all();
    Cluster::of(lab.hosts()).install_all(lab.hosts())?;
    let peer = |id: &'static str| (id, Some("b"));
    let listener = || -> Result<Process> {
        let output = b.within(|| std::fs::File::create("/run/listen.log"))??;
        let process = b.spawn(
            Command::new(HOSTSEAL).args(["doctor", "--listen"]).stdout(output).stderr(Stdio::null()),
        )?;
        until("it listens", Duration::from_secs(10), || {
            ensure!(b.read("/run/listen.log")?.contains("listening on UDP 500 and 4500"));
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(process)
    };
    let _listener = listener()?;
    // Before anything is enabled, and while this host waits for the others.
    for enabled in [false, true] {
        if enabled {
            hostseal(&a, "enable --timeout 20s")?.expect_code(6)?;
        }
        let doctor = Doctor::of(&a, "", 0)?;
        for id in ["udp_ike", "udp_nat", "esp"] {
            doctor.expect(peer(id), "ok", "10.99.0.2: ")?;
            doctor.expect(peer(id), "ok", "fd99::2: ")?;
        }
        doctor.expect(("udp_ike", Some("c")), "unknown", "10.99.0.3 is up, and nobody has UDP 500 there")?;
    }
    for (matching, id, result, what) in [
        ("protocol ip flower ip_proto 0x32", "esp", "FAIL", "ESP (IP protocol 50)"),
        ("protocol ip flower ip_proto udp dst_port 500", "udp_ike", "FAIL", "UDP 500"),
        ("protocol ip flower ip_proto udp dst_port 4500", "udp_nat", "warn", "UDP 4500"),
    ] {
        lab.wire().drop_matching(&b, Toward::Host, matching)?;
        let doctor = Doctor::of(&a, "b", if result == "FAIL" { 3 } else { 0 })?;
        doctor.expect(peer(id), result, &format!("{what} does not get through "))?;
        doctor.expect(peer(id), result, "from this host to the other")?;
        lab.wire().pass_all(&b)?;
    }
    lab.wire().drop_matching(&b, Toward::Wire, "protocol ip flower ip_proto 0x32")?;
    let doctor = Doctor::of(&a, "b", 3)?;
    doctor.expect(peer("esp"), "FAIL", "does not get through from the other host to this one")?;
    lab.wire().pass_all(&b)?;
    // Whoever the file does not list gets no answer, and an agent is in the way of a listener.
    ensure!(hostseal(&a, "doctor --listen")?.code == 1);
    c.run("ip address add 10.99.0.77/16 dev eth0")?;
    let stranger = c.within(|| UdpSocket::bind("10.99.0.77:0"))??;
    stranger.set_read_timeout(Some(Duration::from_secs(1)))?;
    let question = knock::question(&[7; 16]);
    c.within(|| stranger.send_to(&question, (b.v4(), 500)))??;
    ensure!(stranger.recv(&mut [0; 128]).is_err(), "a stranger is answered");
    Ok(())
}

/// On b an interface is a hole, and c does not answer.
fn cluster(lab: &mut Lab) -> Result<()> {
    let hosts = lab.hosts();
    members::found(hosts)?;
    hostseal(&hosts[1], "enable --cluster")?.expect_code(0)?;
    let [a, b, c] = lab.all();
    let doctor = Doctor::of(&a, "--cluster", 0)?;
    println!("{}", hostseal(&a, "doctor --cluster")?.expect_code(0)?.stdout);
    doctor.expect_ok_but(&[])?;
    for node in ["b", "c"] {
        doctor.expect(("answers", Some(node)), "ok", "it answers; ")?;
    }
    b.run("sysctl -qw net.ipv4.conf.eth0.disable_xfrm=1")?;
    kill_agent(&c)?;
    until("both are named", Duration::from_secs(60), || {
        let doctor = Doctor::of(&a, "--cluster", 3)?;
        doctor.expect(("hole", Some("b")), "FAIL", "interface eth0 is a hole")?;
        doctor.expect(("answers", Some("c")), "unknown", "it does not answer")
    })?;
    let one = Doctor::of(&a, "--cluster b", 3)?;
    let dead = Doctor::of(&c, "--cluster", 3)?;
    dead.expect(("answers", None), "unknown", "no agent runs")?;
    ensure!(one.named("answers", Some("c")).next().is_none(), "{}", one.text);
    hostseal(&a, "doctor --listen --cluster")?.expect_code(2).map(drop)
}
