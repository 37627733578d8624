//! X.509 certificates: a host's own chain, and what the chains of others are checked against.
//!
//! The checks are rustls-webpki's: paths, signatures, validity, constraints, revocation. It was made for
//! TLS servers, and what it wants beyond RFC 5280 is what IKE wants too (RFC 4945): certificates of version
//! 3, names in subjectAltName alone, no CA as an end entity, no critical extension that it does not know.
//! It says for which purpose a certificate must be only where the certificate says so itself.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, DnsName, ServerName, TrustAnchor};
use sha2::{Digest as _, Sha256};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeId,
    KeyPurposeIdIter, KeyUsage, OwnedCertRevocationList, RequiredEkuNotFoundContext, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy,
};

use super::PublicKey;
use crate::types::{NodeName, UnixTime};

/// The most certificates of one chain.
pub const CHAIN_MAX: usize = 8;

/// The certificate of a host, and those between it and a CA.
#[derive(PartialEq, Eq)]
pub struct Chain(Vec<CertificateDer<'static>>);

/// The host that a certificate must be for.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The name of the node.
    pub node: &'a NodeName,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
}

/// Why a file holds no certificates, or a host's certificate is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// There is none.
    #[error("there is no certificate")]
    None,
    /// There is no revocation list.
    #[error("there is no revocation list")]
    NoRevocationList,
    /// It is not clear which one issued another.
    #[error("two certificates above its certificate have one name and different keys")]
    Ambiguous,
    /// There are more than [`CHAIN_MAX`].
    #[error("there are more than {CHAIN_MAX} certificates")]
    TooMany,
    /// It is no certificate, or one that nobody could use.
    #[error("its certificate cannot be used: {0}")]
    Unusable(String),
    /// It names somebody else.
    #[error(
        "its certificate is not for node {node}: it has neither that name nor {addresses} as a subjectAltName"
    )]
    OtherName {
        /// The node that it should be for.
        node: NodeName,
        /// One of these addresses would have done.
        addresses: String,
    },
    /// It is over.
    #[error("its certificate, or one above it, expired on {0}")]
    Expired(UnixTime),
    /// It has not begun.
    #[error("its certificate, or one above it, is not valid before {0}")]
    NotYet(UnixTime),
    /// No CA of ours stands behind it.
    #[error("its certificate is not issued by a CA of auth.ca")]
    UnknownIssuer,
    /// It was taken back.
    #[error("its certificate, or one above it, is revoked")]
    Revoked,
    /// It cannot be said whether it was taken back.
    #[error("auth.crl has no list of its certificate's issuer, or of one above it")]
    NoList,
    /// It is for other purposes.
    #[error("its certificate is not for IKE: it has an extended key usage without id-kp-ipsecIKE")]
    Purpose,
}

impl From<Error> for CertificateError {
    fn from(error: Error) -> Self {
        let time = |time: rustls_pki_types::UnixTime| UnixTime(time.as_secs());
        match error {
            Error::CertExpired { not_after, .. } => Self::Expired(time(not_after)),
            Error::CertNotValidYet { not_before, .. } => Self::NotYet(time(not_before)),
            // The latter: a CA of ours has the name of the issuer, and did not sign it.
            Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => Self::UnknownIssuer,
            Error::CertRevoked => Self::Revoked,
            Error::UnknownRevocationStatus => Self::NoList,
            Error::RequiredEkuNotFoundContext(_) => Self::Purpose,
            other => Self::Unusable(format!("{other:?}")),
        }
    }
}

impl Chain {
    /// The certificates in `pem`, the host's own first.
    ///
    /// # Errors
    /// There is none, there are too many, or the first cannot be read.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        Self::new(certificates(pem)?)
    }

    /// The certificates that a peer sent, its own first, in DER.
    ///
    /// # Errors
    /// As [`Chain::from_pem`].
    pub fn from_der<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> Result<Self, CertificateError> {
        // One more than allowed, to be counted; no more than that is kept.
        Self::new(certificates.take(CHAIN_MAX + 1).map(|der| CertificateDer::from(der.to_vec())).collect())
    }

    fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, CertificateError> {
        match certificates.len() {
            0 => Err(CertificateError::None),
            1..=CHAIN_MAX => Ok(Self(certificates)),
            _ => Err(CertificateError::TooMany),
        }
    }

    /// The certificates in DER.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// The key that the host's own certificate is about.
    ///
    /// # Errors
    /// It cannot be read, or the key is of a kind that we do not know.
    pub fn public_key(&self) -> Result<PublicKey, CertificateError> {
        let key = EndEntityCert::try_from(self.own()?)?.subject_public_key_info();
        let unknown =
            || CertificateError::Unusable("its key is not Ed25519, ECDSA P-256 or P-384".to_owned());
        PublicKey::from_der(&key).map_err(|_| unknown())
    }

    /// Whether the host's own certificate names `subject`.
    ///
    /// # Errors
    /// It does not, or cannot be read.
    pub fn names(&self, subject: Subject<'_>) -> Result<(), CertificateError> {
        names(&EndEntityCert::try_from(self.own()?)?, subject)
    }

    fn own(&self) -> Result<&CertificateDer<'static>, CertificateError> {
        self.0.first().ok_or(CertificateError::None)
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain(of {})", self.0.len())
    }
}

/// The name of a set of CAs and revocation lists: a hash of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustId([u8; 32]);

impl fmt::Display for TrustId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A time after all certificates: the last second of the year 9999, which RFC 5280 section 4.1.2.5 has for those that
/// do not end.
const NEVER: UnixTime = UnixTime(253_402_300_799);

/// The CAs that we believe, and what they have revoked.
pub struct Authorities {
    id: TrustId,
    anchors: Vec<TrustAnchor<'static>>,
    /// SHA-1 of the SubjectPublicKeyInfo of each, by which IKE names them (RFC 7296 section 3.7).
    names: Vec<u8>,
    revoked: Option<Vec<CertRevocationList<'static>>>,
}

impl Authorities {
    /// The CAs in `pem`.
    ///
    /// # Errors
    /// One of them cannot be read, or there is none.
    pub fn from_pem(pem: &str) -> Result<Self, CertificateError> {
        let id = TrustId(Sha256::digest(pem).into());
        let mut authorities = Self { id, anchors: Vec::new(), names: Vec::new(), revoked: None };
        for certificate in certificates(pem)? {
            let key = EndEntityCert::try_from(&certificate)?.subject_public_key_info();
            authorities.names.extend(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &key).as_ref());
            authorities.anchors.push(webpki::anchor_from_trusted_cert(&certificate)?.to_owned());
        }
        match authorities.anchors.is_empty() {
            true => Err(CertificateError::None),
            false => Ok(authorities),
        }
    }

    /// Takes back what the revocation lists in `pem` name. From then on there must be one of every CA in a
    /// chain.
    ///
    /// # Errors
    /// One of them cannot be read, or there is none.
    pub fn revoke(&mut self, pem: &str) -> Result<(), CertificateError> {
        let mut lists = Vec::new();
        for der in CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()) {
            let der = der.map_err(|error| CertificateError::Unusable(error.to_string()))?;
            lists.push(CertRevocationList::Owned(OwnedCertRevocationList::from_der(&der)?));
        }
        if lists.is_empty() {
            return Err(CertificateError::NoRevocationList);
        }
        self.revoked = Some(lists);
        self.id = TrustId(Sha256::digest([self.id.0.as_slice(), pem.as_bytes()].concat()).into());
        Ok(())
    }

    /// What names them, with their revocation lists.
    pub fn id(&self) -> TrustId {
        self.id
    }

    /// How a CERTREQ payload names them all.
    pub fn names(&self) -> &[u8] {
        &self.names
    }

    /// Whether `chain` is one of `subject`: it leads to one of our CAs, every certificate in it is valid at
    /// `now`, none is revoked, and the first names the subject and may be used for IKE.
    ///
    /// # Errors
    /// What of that is not so.
    pub fn verify(&self, chain: &Chain, now: UnixTime, subject: Subject<'_>) -> Result<(), CertificateError> {
        let (own, above) = chain.0.split_first().ok_or(CertificateError::None)?;
        ensure_unambiguous(above)?;
        let own = EndEntityCert::try_from(own)?;
        let lists: Option<Vec<&CertRevocationList<'_>>> =
            self.revoked.as_ref().map(|lists| lists.iter().collect());
        let revocation = lists.as_ref().and_then(|lists| RevocationOptionsBuilder::new(lists).ok());
        // Fails closed: with auth.crl every issuer in the chain needs a list. But a list that nobody has
        // renewed in time still counts: what it revokes stays revoked, and no cluster stops for it.
        let revocation = revocation.map(|builder| {
            builder
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let now = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now.0));
        own.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &self.anchors,
            above,
            now,
            ForIke,
            revocation,
            None,
        )?;
        names(&own, subject)
    }
}

impl Authorities {
    /// When the first certificate of `chain`, which [`Authorities::verify`] takes, is over.
    pub fn until(&self, chain: &Chain, subject: Subject<'_>) -> UnixTime {
        // The first that is over then is named: earlier and earlier, until none is.
        let mut until = NEVER;
        while let Err(CertificateError::Expired(earlier)) = self.verify(chain, until, subject)
            && earlier < until
        {
            until = earlier;
        }
        until
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = self.revoked.as_ref().map_or(0, Vec::len);
        write!(f, "Authorities({}, revocation lists: {lists})", self.anchors.len())
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    read.map_err(|error| CertificateError::Unusable(error.to_string()))
}

/// No two of these CAs have one name and different keys. Each could have issued the other then, and anybody can send
/// such: a signature would be checked for each way through them.
fn ensure_unambiguous(above: &[CertificateDer<'_>]) -> Result<(), CertificateError> {
    let cas = above.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok());
    let mut known: Vec<TrustAnchor<'_>> = Vec::new();
    for ca in cas {
        let is_other = |other: &TrustAnchor<'_>| other.subject_public_key_info != ca.subject_public_key_info;
        if known.iter().any(|other| other.subject == ca.subject && is_other(other)) {
            return Err(CertificateError::Ambiguous);
        }
        known.push(ca);
    }
    Ok(())
}

/// An address of the node as an iPAddress, or its name as a dNSName. A wildcard names nobody: whoever has
/// such a certificate could pass for every host that it covers.
fn names(own: &EndEntityCert<'_>, subject: Subject<'_>) -> Result<(), CertificateError> {
    let valid = |name: ServerName<'_>| own.verify_is_valid_for_subject_name(&name).is_ok();
    let name = subject.node.as_str();
    let by_address = subject.addresses.iter().any(|address| valid(ServerName::from(*address)));
    let by_name = || {
        DnsName::try_from(name).is_ok_and(|name| valid(ServerName::DnsName(name)))
            && own.valid_dns_names().any(|listed| listed.eq_ignore_ascii_case(name))
    };
    if by_address || by_name() {
        return Ok(());
    }
    let addresses: Vec<String> = subject.addresses.iter().map(ToString::to_string).collect();
    Err(CertificateError::OtherName { node: subject.node.clone(), addresses: addresses.join(" or ") })
}

/// id-kp-ipsecIKE (RFC 4945 section 5.1.3.12) or anyExtendedKeyUsage (RFC 5280 section 4.2.1.12), where a
/// certificate has an extended key usage at all.
struct ForIke;

const OID_IPSEC_IKE: &[u8] = b"\x2b\x06\x01\x05\x05\x07\x03\x11";
const IPSEC_IKE: KeyPurposeId<'static> = KeyPurposeId::new(OID_IPSEC_IKE);
const ANY: KeyPurposeId<'static> = KeyPurposeId::new(b"\x55\x1d\x25\x00");

impl ExtendedKeyUsageValidator for ForIke {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?;
            if [IPSEC_IKE, ANY].contains(&purpose) {
                return Ok(());
            }
            present.push(purpose.to_decoded_oid());
        }
        match present.is_empty() {
            true => Ok(()),
            false => Err(Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext {
                required: KeyUsage::required_if_present(OID_IPSEC_IKE),
                present,
            })),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
