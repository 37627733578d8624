//! A connection as a foreign daemon is to have it: one description, which each [peer](super::peer) puts into its
//! configuration.

use super::host::{Family, Host};

/// A connection to one other host. Nothing is rekeyed by time.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Its name; the child's name is the same.
    pub name: String,
    /// Our address.
    pub local: String,
    /// Our identity: the address that the other knows us by.
    pub known_as: String,
    /// The other's address and identity.
    pub remote: String,
    /// How both ends prove themselves.
    pub proof: Proof,
    /// What an IKE SA may be made with, in the notation that strongSwan and hostseal share.
    pub proposals: String,
    /// What the SAs of the data may be made with, in the same.
    pub esp_proposals: String,
    /// ESP is to go in UDP.
    pub encap: bool,
    /// It is brought up as soon as it is loaded.
    pub starts: bool,
    /// The post-quantum preshared key (RFC 8784, RFC 9867) that an end is to use.
    pub ppk: Option<PpkOfEnd>,
}

/// What an end says of a post-quantum preshared key.
#[derive(Debug, Clone)]
pub struct PpkOfEnd {
    /// What it calls it.
    pub id: String,
    /// The key in base64, where it has it.
    pub key: Option<String>,
    /// Nothing goes on without it.
    pub required: bool,
    /// It has it in the keys before IKE_AUTH (RFC 9867), where the other end does. hostseal always does, strongSwan never.
    pub early: bool,
}

/// How the ends of a connection prove themselves.
#[derive(Debug, Clone)]
pub enum Proof {
    /// With a pre-shared key, in base64.
    Secret(String),
    /// With raw public keys.
    Keys {
        /// Our private key in PEM.
        private: String,
        /// Our public key: the base64 of a SubjectPublicKeyInfo.
        own: String,
        /// The other's, likewise.
        other: String,
    },
    /// With certificates.
    Certificate {
        /// Our private key in PEM.
        private: String,
        /// Our certificate in PEM.
        own: String,
        /// Those of all CAs in PEM, each by itself.
        cas: Vec<String>,
    },
}

impl Connection {
    /// A connection between two hosts with the suite that hostseal likes best among the classical ones.
    pub fn between(local: &Host, remote: &Host, family: Family, secret: &str) -> Self {
        let name = format!("{}-{}", remote.name(), if family == Family::V4 { "v4" } else { "v6" });
        Self::of(name, &local.address(family).to_string(), &remote.address(family).to_string(), secret)
    }

    /// The same between two addresses.
    pub fn of(name: String, local: &str, remote: &str, secret: &str) -> Self {
        Self {
            name,
            local: local.to_owned(),
            known_as: local.to_owned(),
            remote: remote.to_owned(),
            proof: Proof::Secret(secret.to_owned()),
            proposals: "aes256gcm16-prfsha384-x25519".to_owned(),
            esp_proposals: "aes256gcm16-esn".to_owned(),
            encap: false,
            starts: false,
            ppk: None,
        }
    }

    /// Has the ends know each other by other addresses than their own.
    #[must_use]
    pub fn seen(self, known_as: String, remote: String) -> Self {
        Self { known_as, remote, ..self }
    }

    /// Has both ends prove themselves in another way.
    #[must_use]
    pub fn proof(self, proof: Proof) -> Self {
        Self { proof, ..self }
    }

    /// Has the end use a PPK, or none.
    #[must_use]
    pub fn ppk(self, ppk: Option<PpkOfEnd>) -> Self {
        Self { ppk, ..self }
    }

    /// Has the IKE SA made with something else.
    #[must_use]
    pub fn proposals(self, proposals: &str) -> Self {
        Self { proposals: proposals.to_owned(), ..self }
    }

    /// Has the SAs of the data made with something else.
    #[must_use]
    pub fn esp_proposals(self, proposals: &str) -> Self {
        Self { esp_proposals: proposals.to_owned(), ..self }
    }

    /// Whether ESP is to go in UDP.
    #[must_use]
    pub fn encap(self, encap: bool) -> Self {
        Self { encap, ..self }
    }

    /// Whether it is brought up as soon as it is loaded.
    #[must_use]
    pub fn starts(self, starts: bool) -> Self {
        Self { starts, ..self }
    }
}
