//! The blocks of the manual for foreign members, `docs/interop.md`: what is shown there is what is run here.

use anyhow::{Context as _, Result};

const MANUAL: &str = include_str!("../../../docs/interop.md");

/// hostseal's `[[nodes]]`.
pub const NODES: &str = "toml nodes";
/// A connection of strongSwan's with the secret.
pub const SWANCTL: &str = "conf swanctl";
/// How strongSwan's host gets a key.
pub const PKI: &str = "sh pki";
/// What turns [`SWANCTL`] into a connection with raw public keys.
pub const KEYS: &str = "conf swanctl-keys";
/// The same with certificates.
pub const CERTIFICATES: &str = "conf swanctl-certificates";
/// What strongSwan needs beside its connections over IPv6.
pub const NEIGHBOURS: &str = "conf swanctl-neighbours";
/// A connection of Libreswan's.
pub const IPSEC_CONF: &str = "conf ipsec.conf";
/// The secret of it.
pub const IPSEC_SECRETS: &str = "conf ipsec.secrets";

/// What strongSwan says of a PPK.
#[cfg(test)]
pub const SWANCTL_PPK: &str = "conf swanctl-ppk";
/// What Libreswan says of one beside the secret.
#[cfg(test)]
pub const IPSEC_SECRETS_PPK: &str = "conf ipsec.secrets-ppk";

/// A block as it stands there.
///
/// # Errors
/// When there is none of this name.
pub fn block(name: &str) -> Result<String> {
    let begun = MANUAL.split_once(&format!("\n```{name}\n"));
    let block = begun.and_then(|(_, rest)| rest.split_once("\n```"));
    let (block, _) = block.with_context(|| format!("docs/interop.md has no block `{name}`"))?;
    Ok(format!("{block}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_of_the_manual_is_known() {
        let fences =
            MANUAL.lines().filter_map(|line| line.strip_prefix("```")).filter(|name| !name.is_empty());
        let known = [
            NODES,
            SWANCTL,
            SWANCTL_PPK,
            IPSEC_SECRETS_PPK,
            PKI,
            KEYS,
            CERTIFICATES,
            NEIGHBOURS,
            IPSEC_CONF,
            IPSEC_SECRETS,
        ];
        assert_eq!(fences.collect::<Vec<_>>(), known);
    }
}
