//! The numbers of the IANA registry "Internet Key Exchange Version 2 (IKEv2) Parameters" that we use, and
//! ours from its private ranges.

/// Exchange types (RFC 7296 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Exchange(pub(in crate::ike) u8);

#[allow(missing_docs)]
impl Exchange {
    pub const IKE_SA_INIT: Self = Self(34);
    pub const IKE_AUTH: Self = Self(35);
    pub const CREATE_CHILD_SA: Self = Self(36);
    pub const INFORMATIONAL: Self = Self(37);
    /// RFC 5723.
    pub const IKE_SESSION_RESUME: Self = Self(38);
    /// RFC 9242.
    pub const IKE_INTERMEDIATE: Self = Self(43);
    /// RFC 9370.
    pub const IKE_FOLLOWUP_KE: Self = Self(44);

    /// Whether it is the first exchange of an IKE SA.
    pub fn is_first(self) -> bool {
        matches!(self, Self::IKE_SA_INIT | Self::IKE_SESSION_RESUME)
    }
}

/// Payload types (RFC 7296 section 3.2).
pub mod payload {
    pub const NONE: u8 = 0;
    pub const SA: u8 = 33;
    pub const KE: u8 = 34;
    pub const ID_I: u8 = 35;
    pub const ID_R: u8 = 36;
    pub const CERT: u8 = 37;
    pub const CERTREQ: u8 = 38;
    pub const AUTH: u8 = 39;
    pub const NONCE: u8 = 40;
    pub const NOTIFY: u8 = 41;
    pub const DELETE: u8 = 42;
    pub const VENDOR_ID: u8 = 43;
    pub const TS_I: u8 = 44;
    pub const TS_R: u8 = 45;
    pub const ENCRYPTED: u8 = 46;
    pub const FRAGMENT: u8 = 53;
}

/// Protocol identifiers (RFC 7296 section 3.3.1).
pub mod protocol {
    pub const NONE: u8 = 0;
    pub const IKE: u8 = 1;
    pub const ESP: u8 = 3;
}

/// Transform types and identifiers (RFC 7296 section 3.3.2).
pub mod transform {
    pub const ENCR: u8 = 1;
    pub const PRF: u8 = 2;
    pub const INTEG: u8 = 3;
    pub const DH: u8 = 4;
    pub const ESN: u8 = 5;
    /// The first of the additional key exchanges (RFC 9370 section 2.2.1).
    pub const ADDKE1: u8 = 6;
    /// The last of them.
    pub const ADDKE7: u8 = 12;

    pub const ENCR_AES_CBC: u16 = 12;
    pub const ENCR_AES_GCM_16: u16 = 20;
    pub const PRF_HMAC_SHA2_256: u16 = 5;
    pub const PRF_HMAC_SHA2_384: u16 = 6;
    pub const PRF_HMAC_SHA2_512: u16 = 7;
    pub const INTEG_NONE: u16 = 0;
    pub const INTEG_HMAC_SHA2_256_128: u16 = 12;
    pub const INTEG_HMAC_SHA2_384_192: u16 = 13;
    pub const DH_NONE: u16 = 0;
    pub const DH_ECP_256: u16 = 19;
    pub const DH_ECP_384: u16 = 20;
    pub const DH_CURVE25519: u16 = 31;
    pub const ADDKE_NONE: u16 = 0;
    pub const ADDKE_ML_KEM_768: u16 = 36;
    pub const ESN_NO: u16 = 0;
    pub const ESN_YES: u16 = 1;
}

/// Identification types (RFC 7296 section 3.5).
pub mod id {
    pub const IPV4_ADDR: u8 = 1;
    pub const IPV6_ADDR: u8 = 5;
    pub const KEY_ID: u8 = 11;
}

/// Authentication methods (RFC 7296 section 3.8).
pub mod auth {
    pub const SHARED_KEY: u8 = 2;
    /// RFC 7427 section 3.
    pub const DIGITAL_SIGNATURE: u8 = 14;
}

/// Types of PPK_ID (RFC 8784 section 5.1).
pub mod ppk {
    /// Octets that mean something to whoever chose them: taken as a name.
    pub const OPAQUE: u8 = 1;
    /// A name that both ends know.
    pub const FIXED: u8 = 2;
}

/// Certificate encodings (RFC 7296 section 3.6).
pub mod encoding {
    /// X.509 Certificate - Signature: one certificate in DER.
    pub const X509: u8 = 4;
    /// Raw Public Key (RFC 7670 section 3): a SubjectPublicKeyInfo in DER.
    pub const RAW_PUBLIC_KEY: u8 = 15;
}

/// Hash algorithms in signatures (RFC 7427 section 7, RFC 8420 section 5).
pub mod hash {
    pub const SHA2_256: u16 = 2;
    pub const SHA2_384: u16 = 3;
    /// None: the signature takes the message itself.
    pub const IDENTITY: u16 = 5;
}

/// Traffic selector types (RFC 7296 section 3.13.1).
pub mod ts {
    pub const IPV4_ADDR_RANGE: u8 = 7;
    pub const IPV6_ADDR_RANGE: u8 = 8;
}

/// Notify message types (RFC 7296 section 3.10.1). Below 16384 they are errors.
pub mod notify {
    pub const UNSUPPORTED_CRITICAL_PAYLOAD: u16 = 1;
    pub const INVALID_SYNTAX: u16 = 7;
    pub const NO_PROPOSAL_CHOSEN: u16 = 14;
    pub const INVALID_KE_PAYLOAD: u16 = 17;
    pub const AUTHENTICATION_FAILED: u16 = 24;
    pub const NO_ADDITIONAL_SAS: u16 = 35;
    pub const TS_UNACCEPTABLE: u16 = 38;
    pub const TEMPORARY_FAILURE: u16 = 43;
    pub const CHILD_SA_NOT_FOUND: u16 = 44;
    pub const STATE_NOT_FOUND: u16 = 47;
    /// The first type that is not an error.
    pub const FIRST_STATUS: u16 = 16384;
    pub const INITIAL_CONTACT: u16 = 16384;
    pub const NAT_DETECTION_SOURCE_IP: u16 = 16388;
    pub const NAT_DETECTION_DESTINATION_IP: u16 = 16389;
    pub const COOKIE: u16 = 16390;
    pub const USE_TRANSPORT_MODE: u16 = 16391;
    pub const REKEY_SA: u16 = 16393;
    /// RFC 5723.
    pub const TICKET_NACK: u16 = 16412;
    pub const TICKET_OPAQUE: u16 = 16413;
    /// RFC 6023 section 3.
    pub const CHILDLESS_IKEV2_SUPPORTED: u16 = 16418;
    pub const FRAGMENTATION_SUPPORTED: u16 = 16430;
    /// RFC 7427 section 4.
    pub const SIGNATURE_HASH_ALGORITHMS: u16 = 16431;
    /// RFC 8784 section 3.
    pub const USE_PPK: u16 = 16435;
    pub const PPK_IDENTITY: u16 = 16436;
    pub const NO_PPK_AUTH: u16 = 16437;
    pub const INTERMEDIATE_EXCHANGE_SUPPORTED: u16 = 16438;
    pub const ADDITIONAL_KEY_EXCHANGE: u16 = 16441;
    /// RFC 9867.
    pub const USE_PPK_INT: u16 = 16445;
    pub const PPK_IDENTITY_KEY: u16 = 16446;
    /// The same two before they had numbers, from the private range: Libreswan 5.2 and 5.3.
    pub const DRAFT_USE_PPK_INT: u16 = 50209;
    pub const DRAFT_PPK_IDENTITY_KEY: u16 = 50208;
    /// Our own, in the private range of status types: see `private`.
    pub const HOSTSEAL_CHILD: u16 = 40960 + 0x5ea1;
    /// Our own: see `private`.
    pub const HOSTSEAL_SESSION: u16 = 40960 + 0x5ea2;
    /// Our own: see `life`.
    pub const HOSTSEAL_LIFE: u16 = 40960 + 0x5ea3;
    /// Our own: see `private`.
    pub const HOSTSEAL_PURPOSE: u16 = 40960 + 0x5ea4;
    /// Our own: see `private`.
    pub const HOSTSEAL_MARK: u16 = 40960 + 0x5ea5;
    /// Our own: see `private`.
    pub const HOSTSEAL_QUESTION: u16 = 40960 + 0x5ea6;
    /// Our own: see `private`.
    pub const HOSTSEAL_ANSWER: u16 = 40960 + 0x5ea7;
}
