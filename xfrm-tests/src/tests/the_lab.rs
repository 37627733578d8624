//! The lab itself: that its hosts talk, and that its instruments see what there is to see.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use crate::lab::place::Place;
use crate::lab::root::Root;
use crate::lab::session::{Input, Job, Programs, Session};
use crate::lab::stream::Shape;
use crate::lab::{Direction, FAMILIES, Family, Host, Kind, Lab, Stream, Toward};

pub(super) const ALL: &[Test] = &[
    Test::new("lab::hosts_reach_each_other", 3, hosts_reach_each_other),
    Test::new("lab::a_host_has_its_own_files", 2, a_host_has_its_own_files),
    Test::new("lab::a_capture_tells_discovery_from_clear", 2, a_capture_tells_discovery_from_clear),
    Test::new("lab::a_capture_sees_only_esp_between_sealed_hosts", 2, only_esp_between_sealed_hosts),
    Test::new("lab::a_stream_counts_exactly", 2, a_stream_counts_exactly),
    Test::new("lab::a_stream_sees_loss_duplicates_and_disorder", 2, a_stream_sees_what_netem_does),
    Test::new("lab::what_is_dropped_on_the_wire_is_gone", 2, what_is_dropped_on_the_wire_is_gone),
    Test::new("lab::processes_end_with_their_host", 1, processes_end_with_their_host),
    Test::new("lab::the_kernel_at_hand_will_do", 1, the_kernel_at_hand_will_do),
];

fn hosts_reach_each_other(lab: &mut Lab) -> Result<()> {
    for from in lab.hosts() {
        for to in lab.hosts() {
            for family in FAMILIES {
                let answered = from.ping(to, family, 2)?;
                ensure!(answered == 2, "{} to {} by {family:?}: {answered} of 2", from.name(), to.name());
            }
        }
    }
    Ok(())
}

fn a_host_has_its_own_files(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    for path in ["/etc/hostseal/secret", "/var/lib/hostseal/state", "/run/hostseal/note"] {
        a.write(path, "a's", 0o600)?;
        ensure!(a.read(path)? == "a's");
        ensure!(b.read(path).is_err(), "{path} of a is seen on b");
    }
    Ok(())
}

fn a_capture_tells_discovery_from_clear(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let capture = lab.capture(&a)?;
    for family in FAMILIES {
        ensure!(a.ping(&b, family, 5)? == 5);
    }
    let report = capture.stop()?;
    println!("{report}");
    for family in FAMILIES {
        for direction in [Direction::Out, Direction::In] {
            let clear = report.count_of(Kind::Clear, family, direction);
            ensure!(clear == 5, "{clear} clear packets {direction:?} by {family:?} instead of 5");
        }
    }
    ensure!(report.count(Kind::Discovery) >= 4, "ARP and neighbour discovery, asked and answered: {report}");
    ensure!(report.count(Kind::Esp) == 0 && report.count(Kind::Ike) == 0, "{report}");
    ensure!(report.ensure_nothing_clear().is_err(), "20 clear packets are something");
    Ok(())
}

/// One SA and two policies by hand; both hosts hold the same SAs.
fn seal_by_hand(from: &Host, to: &Host, family: Family, spi: u32) -> Result<()> {
    let (source, target) = (from.address(family), to.address(family));
    let template = format!("tmpl src {source} dst {target} proto esp reqid 7 mode transport");
    for (host, direction) in [(from, "out"), (to, "in")] {
        host.run(&format!(
            "ip xfrm state add src {source} dst {target} proto esp spi {spi:#x} reqid 7 mode transport \
             replay-window 128 flag esn aead 'rfc4106(gcm(aes))' 0x{spi:072x} 128 && \
             ip xfrm policy add src {source} dst {target} dir {direction} {template}"
        ))?;
    }
    Ok(())
}

fn only_esp_between_sealed_hosts(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    // Neighbours are found first: unicast neighbour discovery would match the policies.
    for family in FAMILIES {
        ensure!(a.ping(&b, family, 1)? == 1);
    }
    for (family, spi) in FAMILIES.into_iter().zip([0xc000_0001u32, 0xc000_0003]) {
        seal_by_hand(&a, &b, family, spi)?;
        seal_by_hand(&b, &a, family, spi + 1)?;
    }
    let captures = lab.capture_all()?;
    for family in FAMILIES {
        let answered = a.ping(&b, family, 10)?;
        ensure!(answered == 10, "{answered} of 10 by {family:?}");
    }
    for capture in captures {
        let report = capture.stop()?;
        println!("{report}");
        report.ensure_nothing_clear()?;
        for family in FAMILIES {
            let esp = report.count_of(Kind::Esp, family, Direction::In);
            ensure!(esp == 10, "{esp} ESP packets in by {family:?} instead of 10");
        }
        ensure!(report.packets.iter().any(|packet| packet.spi == Some(0xc000_0002)), "b's SA was used");
    }
    Ok(())
}

fn a_stream_counts_exactly(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    for family in FAMILIES {
        let shape = Shape { family, ..Shape::default() };
        let capture = lab.capture(&b)?;
        let count = Stream::run(&a, &b, shape, Duration::from_secs(1))?;
        println!("{count:?}");
        count.ensure_perfect()?;
        ensure!((900..=1100).contains(&count.sent), "{} packets in a second instead of 1000", count.sent);
        let passed = capture.stop()?.filter(|packet| packet.ports.1 == shape.port);
        ensure!(passed.packets.len() as u64 == count.sent, "{} on the wire", passed.packets.len());
    }
    Ok(())
}

fn a_stream_sees_what_netem_does(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let second = Duration::from_secs(1);
    // The neighbour is known before its discovery is lost too, which would fail in the middle of what follows.
    ensure!(a.ping(&b, Family::V4, 1)? == 1, "the hosts reach each other");
    lab.wire().netem(&a, "loss 100%")?;
    let count = Stream::run(&a, &b, Shape::default(), second)?;
    ensure!(count.sent > 0 && count.received == 0 && count.lost == count.sent, "all lost: {count:?}");
    lab.wire().netem(&a, "duplicate 50%")?;
    let count = Stream::run(&a, &b, Shape::default(), second)?;
    ensure!(count.lost == 0 && count.duplicated > count.sent / 4, "half of them twice: {count:?}");
    lab.wire().netem(&a, "delay 20ms reorder 30%")?;
    let count = Stream::run(&a, &b, Shape::default(), second)?;
    ensure!(count.lost == 0 && count.reordered > count.sent / 10, "a third too early: {count:?}");
    lab.wire().netem(&a, "")?;
    Stream::run(&a, &b, Shape::default(), second)?.ensure_perfect()
}

fn what_is_dropped_on_the_wire_is_gone(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    lab.wire().drop_matching(&a, Toward::Wire, "protocol ip flower ip_proto icmp")?;
    ensure!(a.ping(&b, Family::V4, 3)? == 0, "ICMP over IPv4 is dropped");
    ensure!(a.ping(&b, Family::V6, 3)? == 3, "IPv6 is not");
    Stream::run(&a, &b, Shape::default(), Duration::from_millis(200))?.ensure_perfect()?;
    lab.wire().pass_all(&a)?;
    ensure!(a.ping(&b, Family::V4, 3)? == 3, "nothing is dropped any more");
    Ok(())
}

fn processes_end_with_their_host(_: &mut Lab) -> Result<()> {
    let host = Host::new("passing", 200)?;
    host.run("setsid sleep 1000 >/dev/null 2>&1 </dev/null &")?;
    let left = host.processes()?;
    ensure!(left.len() == 1, "{left:?}");
    drop(host);
    let path = format!("/proc/{}/exe", left[0]);
    ensure!(std::fs::read_link(&path).is_err(), "{path} is still there");
    Ok(())
}

/// A lab inside this lab, on the same kernel: the way it goes on a machine whose kernel has ESP.
fn the_kernel_at_hand_will_do(lab: &mut Lab) -> Result<()> {
    let [a] = lab.all();
    let seal = "ip xfrm policy add src 10.99.0.1 dst 10.99.0.2 dir out action block && exit 7";
    let command = ["sh", "-c", &format!("ping -n -c 1 10.99.0.2 && touch /etc/written && {seal}")];
    let job = Job::Shell { hosts: 2, command: command.map(str::to_owned).to_vec() };
    let code = a.within(|| -> Result<i32> {
        let path = std::path::PathBuf::from("/run/root");
        std::fs::create_dir(&path)?;
        std::process::Command::new("mount").args(["--bind", "/", "/run/root"]).status()?;
        Session::start(&Place::Here(Root { path }), &job, &Programs::default(), Input::Empty, 0)?
            .relay(|_| Ok(()))
    })??;
    ensure!(code == 7, "the inner command ended with {code}");
    ensure!(a.run("ip xfrm policy")?.is_empty(), "the inner policy is not ours");
    ensure!(a.read("/etc/written").is_err(), "the inner file is not ours");
    Ok(())
}
