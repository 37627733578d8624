//! The exporter, run by a user who may look: what it says, what that user cannot do, and whom he can keep from what.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::seal_all;
use crate::lab::agent::{await_end, hostseal, kill_agent, status, status_until};
use crate::lab::agreement::ensure_agree;
use crate::lab::exporter::{self, PORT, Scrape, as_user, get, request, scrape};
use crate::lab::stream::Shape;
use crate::lab::{Cluster, HOSTSEAL, Host, Lab, Stream, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("exporter::a_user_of_the_group_may_look_and_order_nothing", 2, may_look),
    Test::new("exporter::slow_and_many_clients_keep_nobody_from_anything", 2, slow_and_many).within(300),
    Test::new("exporter::without_its_agent_it_says_what_is_still_true", 2, without_agent).within(300),
    Test::new("exporter::no_counter_dips_over_rekeys_and_restarts", 2, no_counter_dips).within(300),
];

/// Where onlookers ask.
const ONLOOKERS: &str = "/run/hostseal/status.sock";
const LOOPBACK: &str = "127.0.0.1:10931";
const LIMIT: Duration = Duration::from_secs(60);

/// A sealed pair of hosts with an exporter each could have, replacing keys that often.
fn sealed(lab: &mut Lab, rekey_after: &str) -> Result<(Host, Host)> {
    let hosts = lab.hosts();
    hosts.iter().try_for_each(exporter::make_group)?;
    let cluster = Cluster::of_v4(hosts).with("keying", &format!("rekey_after = \"{rekey_after}\""));
    seal_all(&cluster, hosts)?;
    Ok((hosts[0].clone(), hosts[1].clone()))
}

fn may_look(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed(lab, "1h")?;
    ensure!(a.run(&format!("stat -c %a:%g {ONLOOKERS}"))?.trim() == "660:990");
    // The exporter needs no file.
    a.run("chmod 0700 /etc/hostseal")?;
    let running = exporter::start(&a, true, LOOPBACK)?;
    a.ping(&b, crate::lab::Family::V4, 3)?;
    // An agent that takes longer than a second, on a machine that is busy, counts as hung meanwhile.
    let page = until("the host is healthy", LIMIT, || {
        let page = scrape(&a)?;
        ensure!(page.value("hostseal_healthy") == Some(1.0), "{}", page.text);
        Ok::<_, anyhow::Error>(page)
    })?;
    println!("{}", page.text);
    for (sample, value) in [
        ("hostseal_agent_up", 1.0),
        ("hostseal_pairs{state=\"protected\"}", 1.0),
        ("hostseal_pairs{state=\"clear\"}", 0.0),
        ("hostseal_pair_series_enabled", 1.0),
        ("hostseal_sas", 2.0),
    ] {
        ensure!(page.value(sample) == Some(value), "{sample} is {:?}", page.value(sample));
    }
    let sent = page.value("hostseal_transmit_packets_total").context("nothing was sent")?;
    ensure!(sent >= 3.0, "{sent}");
    until("it says what status says", LIMIT, || ensure_agree(&a))?;
    let lint = a.run(&format!("curl -s http://{LOOPBACK}/metrics | promtool check metrics 2>&1"))?;
    ensure!(lint.is_empty(), "{lint}");
    // What the command prints once is the same, also for the user.
    let once = a.run(&format!("{} {HOSTSEAL} metrics | promtool check metrics 2>&1", as_user(true)))?;
    ensure!(once.is_empty(), "{once}");
    hostseal(&a, "metrics --out /run/textfile.prom")?.expect_code(0)?;
    ensure!(a.run("stat -c %a /run/textfile.prom")?.trim() == "644");
    ensure!(a.read("/run/textfile.prom")?.contains("hostseal_agent_up 1\n"));
    let url = format!("http://{LOOPBACK}");
    request(&a, &format!("-X POST {url}/metrics"))?.expect(405)?;
    request(&a, &format!("-I {url}/metrics"))?.expect(405)?;
    get(&a, "other")?.expect(404)?;
    orders_nothing(&a)?;
    drop(running);
    by_sockets(&a)?;
    // Whoever is not in the group sees that, and not that the agent is away.
    let _running = exporter::start(&a, false, LOOPBACK)?;
    let refused = get(&a, "metrics")?.expect(503)?;
    ensure!(refused.text.contains("permission denied"), "{}", refused.text);
    ensure!(status(&a)?.all_protected());
    Ok(())
}

/// Where it is asked by the ways that files have.
const UNIX: &str = "/run/exporter/socket";

/// It serves at sockets that a service manager has handed over, of both kinds, and at a Unix socket that it binds itself,
/// which users of its group alone reach.
fn by_sockets(host: &Host) -> Result<()> {
    host.run("rm -f /run/handed")?;
    let (tcp, unix) = host.within(|| -> Result<(OwnedFd, OwnedFd)> {
        Ok((
            TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?.into(),
            UnixListener::bind("/run/handed")?.into(),
        ))
    })??;
    let line = format!(
        "exec 3<&1 4<&2 >/run/exporter.log 2>&1; export LISTEN_PID=$$ LISTEN_FDS=2; exec {} {HOSTSEAL} exporter",
        as_user(true)
    );
    let handed = host.spawn(Command::new("sh").args(["-c", &line]).stdout(tcp).stderr(unix))?;
    let is_served = |arguments: &str| {
        until("the exporter serves", LIMIT, || {
            let page = request(host, arguments)?.expect(200)?;
            ensure!(page.value("hostseal_agent_up") == Some(1.0), "{}", page.text);
            Ok::<_, anyhow::Error>(())
        })
        .with_context(|| host.read("/run/exporter.log").unwrap_or_default())
    };
    is_served(&format!("http://{LOOPBACK}/metrics"))?;
    is_served("--unix-socket /run/handed http://hostseal/metrics")?;
    drop(handed);
    let line = format!("exec {} {HOSTSEAL} exporter --listen unix:{UNIX} 2>/run/exporter.log", as_user(true));
    let _bound = host.spawn(Command::new("sh").args(["-c", &line]))?;
    is_served(&format!("--unix-socket {UNIX} http://hostseal/metrics"))?;
    ensure!(host.run(&format!("stat -c %a {UNIX}"))?.trim() == "660");
    Ok(())
}

/// The user orders nothing, and reads no secret.
fn orders_nothing(host: &Host) -> Result<()> {
    let user = as_user(true);
    for (request, name) in [
        ("\"enable\"", "enable"),
        ("\"disable\"", "disable"),
        ("\"confirm\"", "confirm"),
        ("\"reload\"", "reload"),
        ("\"plan\"", "plan"),
        ("{\"cluster\":\"leave\"}", "an order about the cluster"),
    ] {
        let line = format!("{{\"v\":1,\"request\":{request}}}");
        let answer = host.run(&format!("echo '{line}' | {user} socat -t 20 - UNIX-CONNECT:{ONLOOKERS}"))?;
        ensure!(answer.contains("not_permitted") && answer.contains(name), "{request}: {answer}");
    }
    for command in [
        format!("{HOSTSEAL} disable"),
        format!("{HOSTSEAL} disable --force"),
        "cat /etc/hostseal/secret".to_owned(),
        "cat /var/lib/hostseal/state.json".to_owned(),
        "socat - UNIX-CONNECT:/run/hostseal/hostseal.sock".to_owned(),
        "ip xfrm state".to_owned(),
    ] {
        ensure!(!host.succeeds(&format!("{user} {command}"))?, "{command}");
    }
    Ok(())
}

/// Does `work` while others ask the exporter all the time, each of whom goes soon.
fn in_a_flood<T>(host: &Host, work: impl FnOnce() -> T) -> Result<T> {
    const AT_A_TIME: usize = 64;
    const PAUSE: Duration = Duration::from_millis(2);
    let over = AtomicBool::new(false);
    let flood = || {
        let mut crowd = VecDeque::new();
        while !over.load(Ordering::Relaxed) {
            if let Ok(mut client) = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)) {
                // Whoever has been turned away already is no failure.
                let _ = client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
                crowd.push_back(client);
            }
            crowd.drain(..crowd.len().saturating_sub(AT_A_TIME));
            thread::sleep(PAUSE);
        }
    };
    thread::scope(|scope| {
        let flood = scope.spawn(|| host.within(flood));
        let done = work();
        over.store(true, Ordering::Relaxed);
        flood.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(done)
    })
}

fn slow_and_many(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed(lab, "5s")?;
    let running = exporter::start(&a, true, LOOPBACK)?;
    let rekeys =
        || scrape(&a)?.value("hostseal_rekeys_total{kind=\"child\",result=\"ok\"}").context("no rekeys");
    let before = rekeys()?;
    let stream = Stream::start(&a, &b, Shape::default())?;
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, PORT));
    // Those who say nothing, half of a request, too much, or do not take the answer.
    let crowd = a.within(|| -> Result<_> {
        let mut crowd = Vec::new();
        for at in 0..200 {
            let mut client = connect()?;
            // Whoever has been let go of already is no failure.
            let _ = match at % 4 {
                0 => Ok(()),
                1 => client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n"),
                2 => client.write_all(&[b'x'; 64 * 1024]),
                _ => client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
            };
            crowd.push(client);
        }
        // The same at the agent's own socket: questions whose answers nobody takes, and longer ones than there are.
        let mut askers = Vec::new();
        for at in 0..100 {
            let mut asker = UnixStream::connect(ONLOOKERS)?;
            let _ = match at % 3 {
                0 => asker.write_all(b"{\"v\":1,\"request\":\"status\"}\n"),
                1 => asker.write_all(&[b'x'; 64 * 1024]),
                _ => Ok(()),
            };
            askers.push(asker);
        }
        Ok((crowd, askers))
    })??;
    let page = until("it serves others all the same", LIMIT, || scrape(&a))?;
    ensure!(page.value("hostseal_agent_up") == Some(1.0), "{}", page.text);
    in_a_flood(&a, || {
        until("one of many is answered, by an agent that is there", LIMIT, || {
            let page = scrape(&a)?;
            ensure!(page.value("hostseal_agent_up") == Some(1.0), "{}", page.text);
            Ok::<_, anyhow::Error>(())
        })
    })??;
    let head = a.within(|| -> Result<String> {
        let mut client = connect()?;
        client.set_read_timeout(Some(LIMIT))?;
        let _ = client
            .write_all(format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(40_000)).as_bytes());
        let mut answer = String::new();
        // A reset is an answer, too.
        let _ = client.read_to_string(&mut answer);
        Ok(answer)
    })??;
    ensure!(!head.starts_with("HTTP/1.1 200"), "{head}");
    until("keys are replaced meanwhile", LIMIT, || {
        let now = rekeys()?;
        ensure!(now >= before + 2.0, "{now} after {before}");
        Ok::<_, anyhow::Error>(())
    })?;
    drop(crowd);
    stream.stop()?.ensure_complete()?;
    let memory = a.run(&format!("grep VmRSS /proc/{}/status", running.pid()))?;
    println!("the exporter: {memory}");
    let kilobytes: u64 = memory.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    ensure!(kilobytes < 64 * 1024, "{memory}");
    hostseal(&a, "status")?.expect_code(0)?;
    Ok(())
}

fn without_agent(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed(lab, "1h")?;
    let running = exporter::start(&a, true, LOOPBACK)?;
    let page = scrape(&a)?;
    let expiry = "hostseal_earliest_expiry_timestamp_seconds";
    let known = page.value(expiry).context("no expiry")?;
    // What the agent said serves others for a moment.
    let is_away = |what: &str| {
        until(what, LIMIT, || {
            let page = scrape(&a)?;
            ensure!(
                page.value("hostseal_agent_up") == Some(0.0)
                    && page.value(expiry).is_some_and(|at| (at - known).abs() <= 2.0)
                    && page.value("hostseal_pairs{state=\"protected\"}") == Some(1.0)
                    && !page.text.contains("hostseal_pair_")
                    && page.value("hostseal_healthy").is_none(),
                "{}",
                page.text
            );
            Ok::<_, anyhow::Error>(())
        })
    };
    let agent = status(&a)?.agent()?;
    kill(agent, Signal::SIGSTOP)?;
    is_away("it hangs")?;
    kill(agent, Signal::SIGCONT)?;
    let is_back = || {
        let page = scrape(&a)?;
        ensure!(page.value("hostseal_agent_up") == Some(1.0), "{}", page.text);
        Ok::<_, anyhow::Error>(())
    };
    until("it answers again", LIMIT, is_back)?;
    kill_agent(&a)?;
    is_away("it is gone")?;
    drop(running);
    let running = exporter::start(&a, true, LOOPBACK)?;
    is_away("it is gone, and the exporter is another one")?;
    // What the command finds without an agent it finds in the kernel.
    let printed = || -> Result<Scrape> {
        Ok(Scrape { code: 200, text: hostseal(&a, "metrics")?.expect_code(0)?.stdout })
    };
    let once = printed()?;
    ensure!(
        once.value("hostseal_agent_up") == Some(0.0)
            && once.value(expiry).is_some_and(|at| (at - known).abs() <= 2.0)
            && once.value("hostseal_pairs{state=\"protected\"}") == Some(1.0)
            && once.value("hostseal_protection_info{mode=\"require\",state=\"on\"}") == Some(1.0),
        "{}",
        once.text
    );
    hostseal(&a, "enable")?.expect_code(0)?;
    until("the next one answers", LIMIT, is_back)?;
    // A host that is off needs no agent, and an exporter that has never met one knows that, too.
    hostseal(&a, "disable")?.expect_code(0)?;
    drop(running);
    a.run("rm -rf /run/exporter")?;
    let _running = exporter::start(&a, true, LOOPBACK)?;
    for page in [printed()?, scrape(&a)?] {
        ensure!(
            page.value("hostseal_agent_up") == Some(0.0)
                && page.value("hostseal_protection_info{mode=\"require\",state=\"off\"}") == Some(1.0),
            "{}",
            page.text
        );
    }
    Ok(())
}

fn no_counter_dips(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed(lab, "3s")?;
    let _running = exporter::start(&a, true, LOOPBACK)?;
    let stream = Stream::start(&a, &b, Shape::default())?;
    let mut seen: BTreeMap<String, f64> = BTreeMap::new();
    for round in 0..3 {
        for _ in 0..20 {
            let page = scrape(&a)?;
            for (sample, value) in page.traffic().filter(|_| page.value("hostseal_agent_up") == Some(1.0)) {
                let before = seen.insert(sample.to_owned(), value).unwrap_or_default();
                ensure!(value >= before, "{sample}: {value} after {before}");
            }
            std::thread::sleep(Duration::from_millis(250));
        }
        if round < 2 {
            let agent = status(&a)?.agent()?;
            kill(agent, Signal::SIGTERM)?;
            await_end(&a, agent)?;
            hostseal(&a, "enable")?.expect_code(0)?;
            status_until(&a, "protected again", LIMIT, |status| status.all_protected())?;
        }
    }
    let sums = stream.stop()?;
    sums.ensure_complete()?;
    let page = scrape(&a)?;
    let sent = page.value("hostseal_transmit_packets_total").context("nothing was sent")?;
    ensure!(sent >= sums.sent as f64, "{sent} of {}", sums.sent);
    ensure!(
        page.value("hostseal_rekeys_total{kind=\"child\",result=\"ok\"}").is_some_and(|rekeys| rekeys > 0.0)
    );
    Ok(())
}
