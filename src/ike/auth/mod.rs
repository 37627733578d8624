//! AUTH: each end proves who it is (RFC 7296 section 2.15), with the secret of the cluster or with its
//! own signature (RFC 7427).

pub(super) mod basis;
mod control;
pub(super) mod peer;
pub(super) mod signature;

use std::net::IpAddr;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::identity::certificate::{Authorities, CertificateError, Chain};
use crate::identity::{AuthMethod, Certified, Credentials, Expected, Identity, Proof, Secret, SecretId};
use crate::ike::Settings;
use crate::ike::crypto::Hidden;
use crate::ike::reason::{BadProof, Failed, ProofWay, Reason};
use crate::ike::wire::codes::auth;
use crate::ike::wire::{Encoded, Id, Parts, Payload};
use crate::types::{Prf, UnixTime};
use peer::Peer;

/// RFC 7296 section 2.15: 17 ASCII characters without a terminator.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// What one end signs.
pub(super) struct Signed<'a> {
    /// The negotiated function.
    pub(super) prf: Prf,
    /// The signer's IKE_SA_INIT message, as it was on the wire.
    pub(super) message: &'a [u8],
    /// The nonce of the other end.
    pub(super) nonce: &'a [u8],
    /// The signer's SK_p.
    pub(super) key: &'a Hidden,
    /// The signer's identity.
    pub(super) id: &'a Id,
    /// What stands for the exchanges between IKE_SA_INIT and IKE_AUTH (RFC 9242 section 3.3.2).
    pub(super) intermediate: &'a [u8],
}

/// The peer has proven who it is, in a way that is accepted from it. Only [`Signed::verify`],
/// [`Signed::verify_resumed`] and [`Signed::verify_by_key`] make one, and an established session is made only from one.
#[derive(Debug)]
pub(super) struct Verified(Proof);

impl Verified {
    /// What it has proven itself with.
    pub(super) fn proof(&self) -> &Proof {
        &self.0
    }
}

/// Whether a certificate names the host, and the proof is not taken all the same.
fn is_of_named(unproven: &BadProof) -> bool {
    match unproven {
        BadProof::Certificate(error) => !matches!(error, CertificateError::OtherName { .. }),
        BadProof::OtherSigner | BadProof::NoTime => true,
        _ => false,
    }
}

impl Signed<'_> {
    /// The octets that AUTH is about.
    fn octets(&self) -> Vec<u8> {
        let id = self.prf.compute(self.key.expose(), &[&self.id.body()]);
        [self.message, self.nonce, id.expose(), self.intermediate].concat()
    }

    /// AUTH of this end by a shared key.
    fn keyed(&self, secret: &Secret) -> Vec<u8> {
        let padded = self.prf.compute(secret.expose(), &[KEY_PAD]);
        self.prf.compute(padded.expose(), &[&self.octets()]).expose().to_vec()
    }

    /// The payloads by which this end proves itself to `peer`, and what the proof was made with. `secret` is
    /// the one to use where this end proves itself with one.
    pub(super) fn prove(
        &self,
        identity: &Identity,
        secret: Option<&Secret>,
        peer: &Peer,
    ) -> Result<(Vec<Payload>, Proof), Reason> {
        let (auth, proof) = match identity {
            Identity::Secret => {
                let secret = secret.ok_or(Failed::Cryptography)?;
                let auth = Payload::Auth { method: auth::SHARED_KEY, data: self.keyed(secret) };
                (auth, Proof::Secret(secret.id()))
            }
            Identity::PublicKey(key) | Identity::Certificate(key, _) => {
                (self.sign(key, peer)?, Proof::Key(key.public().clone()))
            }
        };
        // RFC 7296 section 3.6: the one with the key that signs comes first.
        let chain = identity.chain().into_iter().flat_map(Chain::iter);
        let mut payloads: Vec<_> = chain.map(|der| Payload::Cert(Encoded::x509(der))).collect();
        payloads.push(auth);
        Ok((payloads, proof))
    }

    /// Checks that the signer is the host at `remote`: its identity is that address, and its AUTH was made as
    /// is expected from that host. Certificates are judged by the time of day, `wall`.
    pub(super) fn verify(
        &self,
        settings: &Settings,
        remote: IpAddr,
        parts: &Parts<'_>,
        wall: Option<UnixTime>,
    ) -> Result<Verified, BadProof> {
        if *self.id != Id::of(remote) {
            return Err(BadProof::Identity);
        }
        // Several hosts may have an address that floats. The first refusal is told, or that of the host which the
        // certificate is for: no other need be tried then, and each would cost as much.
        let mut refusal = BadProof::Identity;
        for (at, expected) in settings.credentials.expected(remote).enumerate() {
            match self.verify_as(expected, settings, remote, parts, wall) {
                Err(unproven) if is_of_named(&unproven) => return Err(unproven),
                Err(unproven) if at == 0 => refusal = unproven,
                Err(_) => {}
                proven => return proven,
            }
        }
        Err(refusal)
    }

    /// The same for one host that may have the address.
    fn verify_as(
        &self,
        expected: &Expected,
        settings: &Settings,
        remote: IpAddr,
        parts: &Parts<'_>,
        wall: Option<UnixTime>,
    ) -> Result<Verified, BadProof> {
        let (method, data) = parts.auth().ok_or(BadProof::Missing)?;
        let used = match method {
            auth::SHARED_KEY => Some(AuthMethod::Secret),
            // A signature is by the certificate that came with it, where we take any from this peer.
            auth::DIGITAL_SIGNATURE => match settings.credentials.authorities_for(remote) {
                Some(_) if parts.certificates().next().is_some() => Some(AuthMethod::Certificate),
                _ => Some(AuthMethod::PublicKey),
            },
            _ => None,
        };
        // No downgrade: what the file does not accept from this node is not even looked at.
        let accepted = used.filter(|used| expected.methods.contains(used));
        let proven = match accepted {
            None => Err(refused(method, used, expected)),
            Some(AuthMethod::Secret) => self.verify_secret(settings, data),
            Some(AuthMethod::PublicKey) => self.verify_key(expected, data),
            Some(AuthMethod::Certificate) => {
                let chain = Chain::from_der(parts.certificates())?;
                let authorities = settings.credentials.authorities_for(remote);
                self.verify_certified(authorities, expected, chain, data, wall)
            }
        };
        proven.map(Verified)
    }

    /// AUTH of this end where it has resumed against a ticket: RFC 5723 section 4.3.3, by the key that only who
    /// knows the secret can have.
    pub(super) fn prove_resumed(&self) -> Payload {
        Payload::Auth { method: auth::SHARED_KEY, data: self.resumed() }
    }

    /// prf(SK_p, octets).
    fn resumed(&self) -> Vec<u8> {
        self.prf.compute(self.key.expose(), &[&self.octets()]).expose().to_vec()
    }

    /// Checks that the signer, who is the host at `remote`, knows the secret `id`.
    pub(super) fn verify_resumed(
        &self,
        settings: &Settings,
        remote: IpAddr,
        id: SecretId,
        parts: &Parts<'_>,
    ) -> Result<Verified, BadProof> {
        let by_secret = |expected: &Expected| expected.methods.contains(&AuthMethod::Secret);
        let first = settings.credentials.expected(remote).next().ok_or(BadProof::Identity)?;
        let (method, data) = parts.auth().ok_or(BadProof::Missing)?;
        if method != auth::SHARED_KEY || !settings.credentials.expected(remote).any(by_secret) {
            return Err(refused(method, Some(AuthMethod::Secret), first));
        }
        match bool::from(self.resumed().ct_eq(data)) {
            true => Ok(Verified(Proof::Secret(id))),
            false => Err(BadProof::Resumption),
        }
    }

    /// Against each of our secrets, each in constant time.
    fn verify_secret(&self, settings: &Settings, data: &[u8]) -> Result<Proof, BadProof> {
        let known = settings
            .secrets()
            .filter(|secret| bool::from(self.keyed(secret).ct_eq(data)))
            .map(|secret| Proof::Secret(secret.id()))
            .reduce(|first, _| first);
        known.ok_or(BadProof::Secret)
    }

    fn verify_key(&self, expected: &Expected, data: &[u8]) -> Result<Proof, BadProof> {
        let node = || expected.node.clone();
        if expected.public_keys.is_empty() {
            return Err(BadProof::Unlisted(node()));
        }
        let octets = self.octets();
        let signed = expected.public_keys.iter().find(|key| signature::verify(key, data, &octets));
        signed.cloned().map(Proof::Key).ok_or_else(|| BadProof::Key(node()))
    }

    /// Cheap checks come first: anybody can send a chain that takes long to check.
    fn verify_certified(
        &self,
        authorities: Option<&Authorities>,
        expected: &Expected,
        chain: Chain,
        data: &[u8],
        wall: Option<UnixTime>,
    ) -> Result<Proof, BadProof> {
        chain.names(expected.subject())?;
        let key = chain.public_key()?;
        if !signature::verify(&key, data, &self.octets()) {
            return Err(BadProof::OtherSigner);
        }
        let authorities = authorities.ok_or(CertificateError::UnknownIssuer)?;
        authorities.verify(&chain, wall.ok_or(BadProof::NoTime)?, expected.subject())?;
        let until = authorities.until(&chain, expected.subject());
        Ok(Proof::Certified(Certified { trust: authorities.id(), chain: Arc::new(chain), until }))
    }
}

/// What we ask the host at `remote` for, where it may prove itself with a certificate (RFC 7296 section 3.7).
pub(super) fn request(credentials: &Credentials, remote: IpAddr) -> Option<Payload> {
    let authorities = credentials.authorities_for(remote)?;
    Some(Payload::CertReq(Encoded::x509(authorities.names())))
}

fn refused(method: u8, used: Option<AuthMethod>, expected: &Expected) -> BadProof {
    let used = used.map_or(ProofWay::Other(method), ProofWay::Known);
    BadProof::Method { used, accepted: expected.methods.clone(), node: expected.node.clone() }
}
