//! `[metrics]`: what `hostseal exporter` shows, and where. It concerns this host alone.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::values::{Problems, Section, text};

/// Where the exporter listens unless the operator says otherwise.
const LISTEN: &str = "127.0.0.1:10931";
/// What the path of a Unix socket begins with.
const UNIX: &str = "unix:";

/// Where the exporter listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScrapeAddress {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Whether pairs have series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PairSeries {
    /// As long as there are few of them.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// The section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsRules {
    /// Where the exporter listens.
    pub listen: ScrapeAddress,
    /// Whether pairs have series.
    pub pairs: PairSeries,
}

impl Default for ScrapeAddress {
    fn default() -> Self {
        ScrapeAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 10931)))
    }
}

impl fmt::Display for ScrapeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScrapeAddress::Tcp(address) => address.fmt(f),
            ScrapeAddress::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl FromStr for ScrapeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = match text.strip_prefix(UNIX).map(PathBuf::from) {
            Some(path) => path.is_absolute().then_some(ScrapeAddress::Unix(path)),
            None => text.parse().ok().map(ScrapeAddress::Tcp),
        };
        address.ok_or_else(|| {
            format!("must be an address and a port such as {LISTEN:?}, or {UNIX}/PATH, not {text:?}")
        })
    }
}

impl PairSeries {
    /// So many pairs have series if nobody says otherwise.
    pub const FEW: usize = 100;

    /// Whether so many pairs have series.
    pub fn of(self, pairs: usize) -> bool {
        match self {
            PairSeries::Auto => pairs <= Self::FEW,
            PairSeries::Always => true,
            PairSeries::Never => false,
        }
    }
}

impl fmt::Display for PairSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PairSeries::Auto => "auto",
            PairSeries::Always => "true",
            PairSeries::Never => "false",
        })
    }
}

impl MetricsRules {
    /// What a file says, whatever else is in it; errors call it `name`.
    ///
    /// # Errors
    /// The section is wrong.
    pub fn of_file(text: &str, name: &str) -> Result<Self, ConfigError> {
        let problems = Problems::new(text);
        let wrong = |problems: Problems<'_>| ConfigError::Invalid {
            file: name.to_owned(),
            problems: problems.into_vec(),
        };
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                problems.add(error.span().unwrap_or(0..0), "", error.message().replace('\n', "; "));
                return Err(wrong(problems));
            }
        };
        let rules = read(Section::root(&table, &problems).section("metrics"));
        if problems.is_empty() { Ok(rules) } else { Err(wrong(problems)) }
    }
}

/// What the section says.
pub(super) fn read(mut section: Section<'_>) -> MetricsRules {
    let listen = section.value("listen", ScrapeAddress::default(), |value| text(value)?.parse());
    let pairs = section.value("pairs", PairSeries::default(), pairs);
    section.finish();
    MetricsRules { listen, pairs }
}

fn pairs(value: &DeValue<'_>) -> Result<PairSeries, String> {
    match value {
        DeValue::Boolean(true) => Ok(PairSeries::Always),
        DeValue::Boolean(false) => Ok(PairSeries::Never),
        DeValue::String(text) if text == "auto" => Ok(PairSeries::Auto),
        _ => Err("must be \"auto\", true or false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<MetricsRules, String> {
        MetricsRules::of_file(text, "f").map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_section_says_whatever_else_is_in_the_file() {
        let default = rules("[cluster]\nstore = \"etcd\"\n").unwrap();
        assert_eq!(default.listen.to_string(), LISTEN);
        assert_eq!((default.pairs.of(100), default.pairs.of(101)), (true, false));
        let own = rules("[metrics]\nlisten = \"unix:/run/x.sock\"\npairs = false\n").unwrap();
        assert_eq!((own.listen.to_string().as_str(), own.pairs), ("unix:/run/x.sock", PairSeries::Never));
        let own = rules("[metrics]\nlisten = \"[::]:9\"\npairs = true\n").unwrap();
        assert_eq!((own.listen.to_string().as_str(), own.pairs), ("[::]:9", PairSeries::Always));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("listen = \"localhost\"", "metrics.listen"),
            ("listen = \"unix:run/x\"", "or unix:/PATH"),
            ("pairs = \"all\"", "must be \"auto\", true or false"),
            ("port = 9", "metrics.port"),
            ("listen = ", "f:2"),
        ] {
            let error = rules(&format!("[metrics]\n{text}\n")).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
