//! The start of a cluster: its first entry, signed by the keys of its first node and by the recovery key.

use super::entry::{NotSigned, SignedEntry};
use super::not_taken::NotTaken;
use super::octets::{ClusterId, Signer};
use super::roster::Roster;
use super::saying::{Genesis, Keys, Saying, Site, Statement, Version};
use crate::identity::PrivateKey;
use crate::types::node_name;

/// Why no cluster can be founded so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFounded {
    /// What it is to be called is no name.
    #[error("the cluster cannot be called so: {0}")]
    Name(String),
    /// It cannot be signed.
    #[error(transparent)]
    NotSigned(#[from] NotSigned),
    /// The node has no name, no address, an address twice, or one that no host has alone.
    #[error("the first node needs a name, and addresses that it has alone, each once")]
    Site,
}

impl Roster {
    /// The roster of a new cluster. Its first node is at `site`, has the keys `[signing, ike]`, and is an admin.
    ///
    /// # Errors
    /// The names, the addresses or the keys are none.
    pub fn of_new_cluster(
        cluster: &str,
        site: Site,
        [signing, ike]: [&PrivateKey; 2],
        recovery: &PrivateKey,
    ) -> Result<Self, NotFounded> {
        let cluster = node_name::checked(cluster).map_err(NotFounded::Name)?;
        if cluster.is_empty() {
            return Err(NotFounded::Name("its name is empty".to_owned()));
        }
        let signer = |key| Signer::of(key).ok_or(NotSigned::OtherKeys);
        let by = signer(signing)?;
        let keys = Keys { signing: by, ike: signer(ike)? };
        let says = Saying::Genesis(Genesis { cluster, site, keys, recovery: signer(recovery)? });
        let statement = Statement { by, version: Version::default(), after: Vec::new(), basis: None, says };
        let entry = SignedEntry::sign(ClusterId::NONE, statement, &[signing, ike, recovery])?;
        Self::found(entry.octets()).map_err(|why| match why {
            NotTaken::TooLong => NotFounded::NotSigned(NotSigned::TooLong),
            _ => NotFounded::Site,
        })
    }
}
