//! The payloads of a message by what they are.

use super::codes::{encoding, notify, protocol};
use super::{Delete, Id, Ke, Notify, Payload, Proposal, TrafficSelector};
use crate::identity::PublicKey;
use crate::ike::reason::{Incompatible, Misbehaved, Refusal};

/// The payloads of one message. Where a kind is to be there once, its first payload counts.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a>(pub(in crate::ike) &'a [Payload]);

/// Finds the first payload of one kind.
macro_rules! first {
    ($self:expr, $pattern:pat => $value:expr) => {
        $self.0.iter().find_map(|payload| match payload {
            $pattern => Some($value),
            _ => None,
        })
    };
}

impl<'a> Parts<'a> {
    pub fn sa(&self) -> Result<&'a [Proposal], Misbehaved> {
        first!(self, Payload::Sa(proposals) => proposals.as_slice()).ok_or(Misbehaved::NoSa)
    }

    pub fn ke(&self) -> Option<&'a Ke> {
        first!(self, Payload::Ke(ke) => ke)
    }

    pub fn nonce(&self) -> Result<&'a [u8], Misbehaved> {
        first!(self, Payload::Nonce(nonce) => nonce.as_slice()).ok_or(Misbehaved::NoNonce)
    }

    pub fn id_i(&self) -> Option<&'a Id> {
        first!(self, Payload::IdI(id) => id)
    }

    pub fn id_r(&self) -> Option<&'a Id> {
        first!(self, Payload::IdR(id) => id)
    }

    pub fn auth(&self) -> Option<(u8, &'a [u8])> {
        first!(self, Payload::Auth { method, data } => (*method, data.as_slice()))
    }

    /// The X.509 certificates; those of other encodings are skipped (RFC 7296 section 3.6).
    pub fn certificates(&self) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter_map(|payload| match payload {
            Payload::Cert(cert) if cert.encoding == encoding::X509 => Some(cert.data.as_slice()),
            _ => None,
        })
    }

    /// The first public key without a certificate.
    pub fn raw_key(&self) -> Option<PublicKey> {
        let raw = self.0.iter().find_map(|payload| match payload {
            Payload::Cert(cert) if cert.encoding == encoding::RAW_PUBLIC_KEY => Some(&cert.data),
            _ => None,
        });
        PublicKey::from_der(raw?).ok()
    }

    pub fn ts_i(&self) -> Result<&'a [TrafficSelector], Incompatible> {
        first!(self, Payload::TsI(selectors) => selectors.as_slice()).ok_or(Incompatible::Selectors)
    }

    pub fn ts_r(&self) -> Result<&'a [TrafficSelector], Incompatible> {
        first!(self, Payload::TsR(selectors) => selectors.as_slice()).ok_or(Incompatible::Selectors)
    }

    pub fn vendor_ids(&self) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter_map(|payload| match payload {
            Payload::VendorId(id) => Some(id.as_slice()),
            _ => None,
        })
    }

    pub fn deletes(&self) -> impl Iterator<Item = &'a Delete> {
        self.0.iter().filter_map(|payload| match payload {
            Payload::Delete(delete) => Some(delete),
            _ => None,
        })
    }

    pub fn notifies(&self) -> impl Iterator<Item = &'a Notify> {
        self.0.iter().filter_map(|payload| match payload {
            Payload::Notify(notify) => Some(notify),
            _ => None,
        })
    }

    pub fn notify(&self, kind: u16) -> Option<&'a Notify> {
        self.notifies().find(|notify| notify.kind == kind)
    }

    /// The first error in the message.
    pub fn refusal(&self) -> Option<Refusal> {
        self.notifies().find(|notify| notify.is_error()).map(|notify| Refusal::of(notify.kind))
    }

    /// The group that INVALID_KE_PAYLOAD asks for (RFC 7296 section 1.3).
    pub fn wanted_group(&self) -> Option<u16> {
        let group = self.notify(notify::INVALID_KE_PAYLOAD)?.data.as_slice();
        group.try_into().ok().map(u16::from_be_bytes)
    }

    /// Whether a CREATE_CHILD_SA request is about the IKE SA itself: its SA payload offers IKE.
    pub fn is_ike_rekey(&self) -> bool {
        self.sa().is_ok_and(|offers| offers.iter().any(|offer| offer.protocol == protocol::IKE))
    }

    /// The child that a notification of `kind` is about.
    pub fn about_child(&self, kind: u16) -> Option<u32> {
        let (about, spi) = self.notify(kind)?.about.as_ref()?;
        let spi: [u8; 4] = spi.as_slice().try_into().ok()?;
        (*about == protocol::ESP).then_some(u32::from_be_bytes(spi))
    }
}
