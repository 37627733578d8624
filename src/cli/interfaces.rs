//! Interfaces that the kernel's IPsec passes by: sysctls that somebody set.

use std::fs;
use std::path::Path;

/// Sysctls of an interface that are holes, and what they mean. What is set for `all` holds for each.
const HOLES: [(&str, &str, &str); 3] = [
    ("ipv4", "disable_xfrm", "IPv4 packets leave it in the clear"),
    ("ipv4", "disable_policy", "it accepts IPv4 packets in the clear"),
    ("ipv6", "disable_policy", "it accepts IPv6 packets in the clear"),
];

/// What is not protected on this host whatever its policies say, one line for each interface and sysctl.
pub(super) fn holes() -> Vec<String> {
    holes_in(Path::new("/proc/sys/net"))
}

fn holes_in(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for (family, sysctl, meaning) in HOLES {
        let Ok(interfaces) = fs::read_dir(root.join(family).join("conf")) else { continue };
        for interface in interfaces.flatten() {
            let name = interface.file_name().to_string_lossy().into_owned();
            let is_set =
                fs::read_to_string(interface.path().join(sysctl)).is_ok_and(|text| text.trim() != "0");
            // The kernel sets both for loopback; `default` is for interfaces that do not exist yet.
            if is_set && name != "lo" && name != "default" {
                found.push(format!(
                    "interface {name} is a hole: {meaning} (net.{family}.conf.{name}.{sysctl})"
                ));
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_named_and_loopback_is_none() {
        let root = tempfile::tempdir().unwrap();
        for (family, interface, sysctl, value) in [
            ("ipv4", "eth0", "disable_xfrm", "0\n"),
            ("ipv4", "eth1", "disable_xfrm", "1\n"),
            ("ipv4", "lo", "disable_xfrm", "1\n"),
            ("ipv4", "default", "disable_policy", "1\n"),
            ("ipv6", "eth0", "disable_policy", "1\n"),
        ] {
            let directory = root.path().join(family).join("conf").join(interface);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(sysctl), value).unwrap();
        }
        let holes = holes_in(root.path());
        assert_eq!(
            holes,
            [
                "interface eth0 is a hole: it accepts IPv6 packets in the clear (net.ipv6.conf.eth0.disable_policy)",
                "interface eth1 is a hole: IPv4 packets leave it in the clear (net.ipv4.conf.eth1.disable_xfrm)",
            ]
        );
        assert_eq!(holes_in(&root.path().join("nothing")), Vec::<String>::new());
    }
}
