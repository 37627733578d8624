//! By which names browsers may ask for the page. A site on the Internet can have its own name point to this host, and read
//! through a browser that stands here what is shown to it (DNS rebinding); what it cannot have is the name that the browser
//! says it asks for.

use std::net::IpAddr;
use std::str::FromStr as _;

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Uri};

/// The names of this host, beside those that all hosts have.
pub(super) struct HostNames {
    own: Vec<String>,
}

impl HostNames {
    /// What the system is called, with and without its domain, and the names that the operator has `given`.
    pub(super) fn new(system: Option<&str>, given: &[String]) -> Self {
        let short = system.and_then(|name| name.split('.').next());
        let own = system.into_iter().chain(short).chain(given.iter().map(String::as_str));
        let own = own.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase);
        Self { own: own.collect() }
    }

    /// Whether a request for `uri` with these headers asks by a name that only this host has. An address is none that a
    /// site could have.
    pub(super) fn are_asked(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| Authority::from_str(host.to_str().ok()?).ok());
        let is_one = hosts.next().is_none();
        let target = uri.authority().is_none_or(|target| self.take(target));
        is_one && target && host.is_some_and(|host| self.take(&host))
    }

    fn take(&self, authority: &Authority) -> bool {
        let host = authority.host().to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        let name = host.strip_suffix('.').unwrap_or(&host);
        let is_loopback = name == "localhost" || name.ends_with(".localhost");
        let is_whole = !authority.as_str().contains('@');
        is_whole && (is_loopback || bare.parse::<IpAddr>().is_ok() || self.own.iter().any(|own| own == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_asked(host: &[&str], target: &str) -> bool {
        let names = HostNames::new(Some("Web1.example.org"), &["status.example.org".to_owned()]);
        let mut headers = HeaderMap::new();
        for host in host {
            headers.append(HOST, host.parse().unwrap());
        }
        names.are_asked(&target.parse().unwrap(), &headers)
    }

    #[test]
    fn addresses_loopback_and_own_names_are_taken_and_no_others() {
        let taken = [
            "localhost",
            "localhost:8080",
            "LOCALHOST.",
            "a.localhost",
            "127.0.0.1:10931",
            "10.0.0.1",
            "[::1]:10931",
            "[fd99::1]",
            "web1",
            "web1:10931",
            "web1.example.org",
            "WEB1.Example.org:80",
            "status.example.org",
        ];
        for host in taken {
            assert!(are_asked(&[host], "/"), "{host}");
        }
        let refused = [
            "evil.example",
            "evil.example:10931",
            "web1.evil.example",
            "example.org",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "web1@evil.example",
            "evil.example@web1",
            "",
            "x y",
            "fd99::1]",
            "[]",
        ];
        for host in refused {
            assert!(!are_asked(&[host], "/"), "{host}");
        }
    }

    #[test]
    fn who_says_no_name_or_two_is_refused() {
        assert!(!are_asked(&[], "/") && !are_asked(&["localhost", "localhost"], "/"));
        assert!(are_asked(&["localhost"], "http://localhost:10931/"));
        assert!(!are_asked(&["localhost"], "http://evil.example/"));
    }

    #[test]
    fn a_host_that_is_called_nothing_has_the_names_of_all() {
        let names = HostNames::new(Some(""), &[]);
        let asked = |host: &str| names.take(&host.parse().unwrap());
        assert!(asked("localhost") && !asked("web1"));
    }
}
