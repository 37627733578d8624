//! The ports that connections of this host begin at, unless a program chooses one.

use std::fs;

/// The first of them, for IPv4 and IPv6 alike; `None` where the system does not say.
pub fn first_client_port() -> Option<u16> {
    first(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

fn first(range: &str) -> Option<u16> {
    range.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_first_of_two_numbers() {
        assert_eq!(first("32768\t60999\n"), Some(32768));
        assert_eq!(first("1024 65535"), Some(1024));
        assert_eq!((first(""), first("70000 1"), first("x")), (None, None, None));
        assert!(first_client_port().is_some());
    }
}
