//! Holes of this host's system, in words.

use crate::types::{Hole, HoleKind, Problem, ProblemCode};

/// What is not protected on this host whatever its policies say: critical where packets of its pairs pass, for
/// information elsewhere.
pub fn problems(holes: &[Hole]) -> Vec<Problem> {
    holes.iter().map(problem).collect()
}

fn problem(hole: &Hole) -> Problem {
    let Hole { interface, kind, is_used } = hole;
    let (family, sysctl) = (kind.family(), kind.sysctl());
    // sysctl takes slashes too, where a name has dots.
    let key = match interface.contains('.') {
        false => format!("net.{family}.conf.{interface}.{sysctl}"),
        true => format!("net/{family}/conf/{interface}/{sysctl}"),
    };
    let meaning = match kind {
        HoleKind::XfrmV4 => "IPv4 packets leave in the clear",
        HoleKind::PolicyV4 => "IPv4 packets are accepted in the clear",
        HoleKind::PolicyV6 => "IPv6 packets are accepted in the clear",
    };
    let what = match interface.as_str() {
        "all" => format!("every interface is a hole: {meaning}"),
        _ if *is_used => format!("interface {interface} is a hole: {meaning}"),
        _ => format!("interface {interface} is a hole, though no pair uses it now: {meaning}"),
    };
    let problem = match is_used {
        true => Problem::critical(ProblemCode::Hole, None, what),
        false => Problem::info(ProblemCode::Hole, None, what),
    };
    problem.mended_by(format!("Close it: `sysctl -w {key}=0`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(interface: &str, kind: HoleKind, is_used: bool) -> Problem {
        problem(&Hole { interface: interface.to_owned(), kind, is_used })
    }

    #[test]
    fn each_is_named_with_the_way_to_close_it() {
        for (interface, kind, words) in [
            (
                "all",
                HoleKind::PolicyV4,
                "every interface is a hole: IPv4 packets are accepted in the clear. Close it: \
                 `sysctl -w net.ipv4.conf.all.disable_policy=0`",
            ),
            (
                "eth0.7",
                HoleKind::PolicyV6,
                "interface eth0.7 is a hole: IPv6 packets are accepted in the clear. Close it: \
                 `sysctl -w net/ipv6/conf/eth0.7/disable_policy=0`",
            ),
            (
                "eth1",
                HoleKind::XfrmV4,
                "interface eth1 is a hole: IPv4 packets leave in the clear. Close it: \
                 `sysctl -w net.ipv4.conf.eth1.disable_xfrm=0`",
            ),
        ] {
            assert_eq!(told(interface, kind, true).message, words);
        }
    }

    #[test]
    fn one_that_no_pair_uses_is_no_gap() {
        let (used, unused) = (told("vti0", HoleKind::XfrmV4, true), told("vti0", HoleKind::XfrmV4, false));
        assert!(used.is_critical() && !unused.is_critical());
        assert!(unused.message.contains("though no pair uses it now"));
    }
}
