//! What an agent starts with, where something of what it finds is wrong.

use std::net::IpAddr;

use anyhow::{Context as _, anyhow};

use super::cluster::ClusterStart;
use super::ports::SecretSource;
use super::setup::{Secrets, Setup};
use crate::config::Config;
use crate::observe::causes;
use crate::store::Saved;
use crate::types::Protection;

/// What an agent starts with.
pub struct Start {
    /// What the configuration says, or what it said when it was good.
    pub setup: Setup,
    /// The secrets, where they can be read.
    pub secrets: Option<Secrets>,
    /// What the agent before left.
    pub saved: Saved,
    /// What is wrong with the files as they are now.
    pub trouble: Option<String>,
    /// Why there are no secrets, where that is known.
    pub withheld: Option<String>,
    /// Where this host is a member of a cluster.
    pub cluster: Option<ClusterStart>,
}

/// What is found of a host whose agent starts.
pub struct Found {
    /// The configuration, or what it was when it was good.
    pub config: Config,
    /// Why it is not as the file has it now.
    pub broken: Option<anyhow::Error>,
    /// What it was when it was good, where that is known.
    pub last_good: Option<Config>,
    /// What the agent before left.
    pub saved: Saved,
    /// The addresses of this host.
    pub own: anyhow::Result<Vec<IpAddr>>,
    /// What the environment calls it.
    pub named: Option<String>,
}

impl Start {
    /// Chooses among what was found. Where that is wrong and this host is protected, what was good before will do:
    /// somebody must keep what the kernel holds, and say what is wrong.
    ///
    /// # Errors
    /// Something is wrong, and nothing is protected, or nothing is known of how it was before.
    pub fn of(found: Found, source: &mut dyn SecretSource) -> anyhow::Result<Self> {
        let Found { config, mut broken, last_good, saved, own, named } = found;
        let own = own
            .context("this host's addresses cannot be listed")
            .map_err(|error| causes::words(error.as_ref()));
        let who = |config: Config| -> anyhow::Result<Setup> {
            let own = own.as_ref().map_err(|words| anyhow!("{words}"))?;
            let config = config.after_end(saved.ppks_required_since);
            let node = config.whoami(own, named.as_deref(), saved.node.as_ref())?.clone();
            Ok(Setup::new(config, node))
        };
        let setup = match who(config) {
            Ok(setup) => setup,
            Err(error) => match last_good.filter(|_| broken.is_none()).map(who) {
                Some(Ok(setup)) => {
                    broken = Some(error);
                    setup
                }
                _ => return Err(error),
            },
        };
        let (secrets, unread) = match source.read(&setup, None) {
            Ok(secrets) => (secrets, None),
            Err(error) => (None, Some(error)),
        };
        // The last that is found wrong is told.
        let broken = broken.filter(|_| unread.is_none());
        if saved.protection == Protection::Off {
            [unread, broken].into_iter().flatten().try_for_each(Err)?;
            return Ok(Self { setup, secrets, saved, trouble: None, withheld: None, cluster: None });
        }
        let words = |error: anyhow::Error| causes::words(error.as_ref());
        Ok(Self {
            setup,
            secrets,
            saved,
            trouble: broken.map(words),
            withheld: unread.map(words),
            cluster: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use anyhow::bail;

    use super::*;
    use crate::identity::Secret;
    use crate::types::UnixTime;

    /// A source that gives nothing, and says why or that it will.
    struct Nothing(Option<&'static str>);

    impl SecretSource for Nothing {
        fn read(&mut self, _: &Setup, _: Option<&Arc<Secret>>) -> anyhow::Result<Option<Secrets>> {
            match self.0 {
                Some(words) => bail!("{words}"),
                None => Ok(None),
            }
        }
    }

    /// A source that has what is asked for.
    struct All;

    impl SecretSource for All {
        fn read(&mut self, _: &Setup, _: Option<&Arc<Secret>>) -> anyhow::Result<Option<Secrets>> {
            Ok(Some(Secrets::default()))
        }
    }

    fn config(address: &str) -> Config {
        let nodes = format!("cluster = \"c\"\n[[nodes]]\nname = \"a\"\naddresses = [\"{address}\"]\n");
        Config::parse(&nodes, "file").unwrap()
    }

    /// A host with the address 10.0.0.1, whose file says `address`, and said that it is that when it was good.
    fn found(address: &str, protection: Protection) -> Found {
        Found {
            config: config(address),
            broken: None,
            last_good: Some(config("10.0.0.1")),
            saved: Saved { protection, ..Saved::default() },
            own: Ok(vec!["10.0.0.1".parse().unwrap()]),
            named: None,
        }
    }

    fn words(outcome: anyhow::Result<Start>) -> String {
        causes::words(outcome.err().expect("it does not start").as_ref())
    }

    #[test]
    fn a_host_that_is_off_does_not_start_with_files_that_are_wrong() {
        let off = |found, source: &mut dyn SecretSource| words(Start::of(found, source));
        assert_eq!(off(found("10.0.0.1", Protection::Off), &mut Nothing(Some("no file"))), "no file");
        assert!(off(found("10.0.0.7", Protection::Off), &mut All).contains("10.0.0.7"));
        let broken = Found { broken: Some(anyhow!("line 3")), ..found("10.0.0.1", Protection::Off) };
        assert_eq!(off(broken, &mut All), "line 3");
        assert!(Start::of(found("10.0.0.1", Protection::Off), &mut Nothing(None)).is_ok(), "it may come");
    }

    #[test]
    fn a_time_without_ppks_that_is_over_does_not_come_back_with_another_clock() {
        let optional =
            "[ppk]\nid = \"k\"\nfile = \"/k\"\nrequired = false\noptional_until = \"2027-01-31\"\n";
        let since = |saved: Option<u64>| {
            let nodes = "[[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n";
            let config = Config::parse(&format!("cluster = \"c\"\n{optional}{nodes}"), "file").unwrap();
            let mut found = Found { config, ..found("10.0.0.1", Protection::On) };
            found.saved.ppks_required_since = saved.map(UnixTime);
            Start::of(found, &mut All).unwrap().setup.config.ppks_required_since().map(|end| end.0)
        };
        let end = 1_801_353_600;
        assert_eq!(since(Some(end)), Some(end));
        assert_eq!(since(None), None);
        assert_eq!(since(Some(end - 1)), None, "the operator has given a later one since");
    }

    #[test]
    fn a_host_that_is_protected_goes_on_with_what_was_good_and_says_what_is_wrong() {
        let start = Start::of(found("10.0.0.7", Protection::On), &mut All).unwrap();
        assert_eq!(start.setup.node.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(start.trouble.is_some() && start.secrets.is_some() && start.withheld.is_none());
        let start = Start::of(found("10.0.0.1", Protection::On), &mut Nothing(Some("no file"))).unwrap();
        assert_eq!((start.trouble, start.withheld.as_deref()), (None, Some("no file")));
        // Nothing is known of how it was before.
        let lost = Found { last_good: None, ..found("10.0.0.7", Protection::On) };
        assert!(Start::of(lost, &mut All).is_err());
        let listless = Found { own: Err(anyhow!("no netlink")), ..found("10.0.0.1", Protection::On) };
        assert_eq!(
            words(Start::of(listless, &mut All)),
            "this host's addresses cannot be listed: no netlink"
        );
    }
}
