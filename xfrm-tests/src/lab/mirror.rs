//! The Debian mirror of this machine, read from its own apt sources.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

/// A Debian archive that apt on this machine is set up to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    /// The URI as it stands in the sources.
    pub(super) uri: String,
    /// The keyring that its `Signed-By` names, when it is a file.
    pub(super) keyring: Option<PathBuf>,
}

/// The suites by which a source shows that it is the Debian archive (and not somebody's own repository).
const DEBIAN_SUITES: [&str; 8] =
    ["bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"];

impl Mirror {
    /// `$HOSTSEAL_LAB_MIRROR`, or the first Debian archive in this machine's apt sources.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn find() -> Result<Self> {
        if let Ok(uri) = env::var("HOSTSEAL_LAB_MIRROR") {
            return Ok(Self { uri, keyring: None });
        }
        let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
        if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
            let mut parts: Vec<_> = parts.flatten().map(|entry| entry.path()).collect();
            parts.sort();
            files.extend(parts);
        }
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            let found = match file.extension().and_then(|ending| ending.to_str()) {
                Some("sources") => in_deb822(&text),
                Some("list") => in_one_line(&text),
                _ => None,
            };
            if let Some(mirror) = found {
                return Ok(mirror);
            }
        }
        bail!(
            "no Debian archive stands in /etc/apt/sources.list or /etc/apt/sources.list.d; \
             name one in HOSTSEAL_LAB_MIRROR"
        )
    }

    /// A line for sources.list that takes component main of `suite` from here.
    pub(super) fn line(&self, suite: &str) -> String {
        match &self.keyring {
            Some(keyring) => format!("deb [signed-by={}] {} {suite} main", keyring.display(), self.uri),
            None => format!("deb {} {suite} main", self.uri),
        }
    }
}

/// The first Debian archive in a deb822 file (`*.sources`).
fn in_deb822(text: &str) -> Option<Mirror> {
    text.split("\n\n").find_map(|stanza| {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let has = |name: &str, wanted: &[&str]| {
            field(name).is_some_and(|value| value.split_whitespace().any(|word| wanted.contains(&word)))
        };
        let usable = has("Types", &["deb"])
            && has("Suites", &DEBIAN_SUITES)
            && has("Components", &["main"])
            && field("Enabled") != Some("no");
        let uri = field("URIs")?.split_whitespace().next()?.to_owned();
        let keyring = field("Signed-By").and_then(keyring_file);
        usable.then_some(Mirror { uri, keyring })
    })
}

/// The first Debian archive in a file of the one-line format (`*.list`).
fn in_one_line(text: &str) -> Option<Mirror> {
    text.lines().find_map(|line| {
        let rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(inner) => inner.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?.to_owned(), words.next()?);
        let usable = DEBIAN_SUITES.contains(&suite) && words.any(|component| component == "main");
        let keyring =
            options.split_whitespace().find_map(|option| keyring_file(option.strip_prefix("signed-by=")?));
        usable.then_some(Mirror { uri, keyring })
    })
}

/// A `Signed-By` that names a file; it may also hold a key or a fingerprint.
fn keyring_file(value: &str) -> Option<PathBuf> {
    Some(Path::new(value)).filter(|path| path.is_absolute()).map(Path::to_owned)
}

/// What this machine's apt is told about proxies and certificates, as lines of apt's configuration.
///
/// # Errors
/// When apt-config is missing or fails.
pub(super) fn apt_transport_options() -> Result<Vec<String>> {
    let dump = std::process::Command::new("apt-config")
        .arg("dump")
        .output()
        .context("apt-config cannot be run: the lab's root is built with apt of Debian or Ubuntu")?;
    let lines = String::from_utf8_lossy(&dump.stdout)
        .lines()
        .filter(|line| line.starts_with("Acquire::http") || line.starts_with("Acquire::Retries"))
        .filter(|line| !line.ends_with("\"\";"))
        .map(str::to_owned)
        .collect();
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_found_among_other_stanzas() {
        let text = "Types: deb\nURIs: https://example.org/node\nSuites: nodistro\nComponents: main\n\n\
                    # the archive\nTypes: deb deb-src\nURIs: http://mirror.example/debian/ http://b.example\n\
                    Suites: bookworm bookworm-updates\nComponents: main contrib\n\
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let mirror = in_deb822(text).expect("the second stanza is Debian's");
        assert_eq!(mirror.uri, "http://mirror.example/debian/");
        assert_eq!(
            mirror.line("trixie"),
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian/ trixie main"
        );
    }

    #[test]
    fn disabled_and_security_stanzas_are_passed_over() {
        let off = "Enabled: no\nTypes: deb\nURIs: http://a.example\nSuites: trixie\nComponents: main\n";
        let security = "Types: deb\nURIs: http://a.example\nSuites: trixie-security\nComponents: main\n";
        assert_eq!(in_deb822(off), None);
        assert_eq!(in_deb822(security), None);
    }

    #[test]
    fn one_line_sources_may_carry_options_and_comments() {
        let text = "# deb http://old.example trixie main\ndeb-src http://src.example trixie main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian bookworm main # ours\n";
        let mirror = in_one_line(text).expect("the third line is Debian's");
        assert_eq!(mirror, Mirror { uri: "http://a.example/debian".into(), keyring: Some("/k.gpg".into()) });
        assert_eq!(in_one_line("deb https://example.org/apt cloud-sdk-bookworm main"), None);
    }
}
