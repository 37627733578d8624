//! The numbers of the IANA registry "Internet Key Exchange Version 2 (IKEv2) Parameters" that we use, and
//! those of our own from its private ranges.

/// Exchange types (RFC 7296 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::ike) struct Exchange(pub(in crate::ike) u8);

#[allow(missing_docs)]
impl Exchange {
    pub(in crate::ike) const IKE_SA_INIT: Self = Self(34);
    pub(in crate::ike) const IKE_AUTH: Self = Self(35);
    pub(in crate::ike) const CREATE_CHILD_SA: Self = Self(36);
    pub(in crate::ike) const INFORMATIONAL: Self = Self(37);
    /// RFC 5723.
    pub(in crate::ike) const IKE_SESSION_RESUME: Self = Self(38);
    /// RFC 9242.
    pub(in crate::ike) const IKE_INTERMEDIATE: Self = Self(43);
    /// RFC 9370.
    pub(in crate::ike) const IKE_FOLLOWUP_KE: Self = Self(44);

    /// Whether it is the first exchange of an IKE SA.
    pub(in crate::ike) fn opens(self) -> bool {
        matches!(self, Self::IKE_SA_INIT | Self::IKE_SESSION_RESUME)
    }
}

/// Payload types (RFC 7296 section 3.2).
pub(in crate::ike) mod payload {
    pub(in crate::ike) const NONE: u8 = 0;
    pub(in crate::ike) const SA: u8 = 33;
    pub(in crate::ike) const KE: u8 = 34;
    pub(in crate::ike) const ID_I: u8 = 35;
    pub(in crate::ike) const ID_R: u8 = 36;
    pub(in crate::ike) const CERT: u8 = 37;
    pub(in crate::ike) const CERTREQ: u8 = 38;
    pub(in crate::ike) const AUTH: u8 = 39;
    pub(in crate::ike) const NONCE: u8 = 40;
    pub(in crate::ike) const NOTIFY: u8 = 41;
    pub(in crate::ike) const DELETE: u8 = 42;
    pub(in crate::ike) const VENDOR_ID: u8 = 43;
    pub(in crate::ike) const TS_I: u8 = 44;
    pub(in crate::ike) const TS_R: u8 = 45;
    pub(in crate::ike) const ENCRYPTED: u8 = 46;
    pub(in crate::ike) const FRAGMENT: u8 = 53;
}

/// Protocol identifiers (RFC 7296 section 3.3.1).
pub(in crate::ike) mod protocol {
    pub(in crate::ike) const NONE: u8 = 0;
    pub(in crate::ike) const IKE: u8 = 1;
    pub(in crate::ike) const ESP: u8 = 3;
}

/// Transform types and identifiers (RFC 7296 section 3.3.2).
pub(in crate::ike) mod transform {
    pub(in crate::ike) const ENCR: u8 = 1;
    pub(in crate::ike) const PRF: u8 = 2;
    pub(in crate::ike) const INTEG: u8 = 3;
    pub(in crate::ike) const DH: u8 = 4;
    pub(in crate::ike) const ESN: u8 = 5;
    /// The first of the additional key exchanges (RFC 9370 section 2.2.1).
    pub(in crate::ike) const ADDKE1: u8 = 6;
    /// The last of them.
    pub(in crate::ike) const ADDKE7: u8 = 12;

    pub(in crate::ike) const ENCR_AES_CBC: u16 = 12;
    pub(in crate::ike) const ENCR_AES_GCM_16: u16 = 20;
    pub(in crate::ike) const PRF_HMAC_SHA2_256: u16 = 5;
    pub(in crate::ike) const PRF_HMAC_SHA2_384: u16 = 6;
    pub(in crate::ike) const PRF_HMAC_SHA2_512: u16 = 7;
    pub(in crate::ike) const INTEG_NONE: u16 = 0;
    pub(in crate::ike) const INTEG_HMAC_SHA2_256_128: u16 = 12;
    pub(in crate::ike) const INTEG_HMAC_SHA2_384_192: u16 = 13;
    pub(in crate::ike) const DH_NONE: u16 = 0;
    pub(in crate::ike) const DH_ECP_256: u16 = 19;
    pub(in crate::ike) const DH_ECP_384: u16 = 20;
    pub(in crate::ike) const DH_CURVE25519: u16 = 31;
    pub(in crate::ike) const ADDKE_NONE: u16 = 0;
    pub(in crate::ike) const ADDKE_ML_KEM_768: u16 = 36;
    pub(in crate::ike) const ESN_NO: u16 = 0;
    pub(in crate::ike) const ESN_YES: u16 = 1;
}

/// Identification types (RFC 7296 section 3.5).
pub(in crate::ike) mod id {
    pub(in crate::ike) const IPV4_ADDR: u8 = 1;
    pub(in crate::ike) const IPV6_ADDR: u8 = 5;
}

/// Authentication methods (RFC 7296 section 3.8).
pub(in crate::ike) mod auth {
    pub(in crate::ike) const SHARED_KEY: u8 = 2;
    /// RFC 7427 section 3.
    pub(in crate::ike) const DIGITAL_SIGNATURE: u8 = 14;
}

/// Certificate encodings (RFC 7296 section 3.6).
pub(in crate::ike) mod encoding {
    /// X.509 Certificate - Signature: one certificate in DER.
    pub(in crate::ike) const X509: u8 = 4;
}

/// Hash algorithms in signatures (RFC 7427 section 7, RFC 8420 section 5).
pub(in crate::ike) mod hash {
    pub(in crate::ike) const SHA2_256: u16 = 2;
    pub(in crate::ike) const SHA2_384: u16 = 3;
    /// None: the signature takes the message itself.
    pub(in crate::ike) const IDENTITY: u16 = 5;
}

/// Traffic selector types (RFC 7296 section 3.13.1).
pub(in crate::ike) mod ts {
    pub(in crate::ike) const IPV4_ADDR_RANGE: u8 = 7;
    pub(in crate::ike) const IPV6_ADDR_RANGE: u8 = 8;
}

/// Notify message types (RFC 7296 section 3.10.1). Below 16384 they are errors.
pub(in crate::ike) mod notify {
    pub(in crate::ike) const UNSUPPORTED_CRITICAL_PAYLOAD: u16 = 1;
    pub(in crate::ike) const INVALID_SYNTAX: u16 = 7;
    pub(in crate::ike) const NO_PROPOSAL_CHOSEN: u16 = 14;
    pub(in crate::ike) const INVALID_KE_PAYLOAD: u16 = 17;
    pub(in crate::ike) const AUTHENTICATION_FAILED: u16 = 24;
    pub(in crate::ike) const NO_ADDITIONAL_SAS: u16 = 35;
    pub(in crate::ike) const TS_UNACCEPTABLE: u16 = 38;
    pub(in crate::ike) const TEMPORARY_FAILURE: u16 = 43;
    pub(in crate::ike) const CHILD_SA_NOT_FOUND: u16 = 44;
    pub(in crate::ike) const STATE_NOT_FOUND: u16 = 47;
    /// The first type that is not an error.
    pub(in crate::ike) const FIRST_STATUS: u16 = 16384;
    pub(in crate::ike) const INITIAL_CONTACT: u16 = 16384;
    pub(in crate::ike) const NAT_DETECTION_SOURCE_IP: u16 = 16388;
    pub(in crate::ike) const NAT_DETECTION_DESTINATION_IP: u16 = 16389;
    pub(in crate::ike) const COOKIE: u16 = 16390;
    pub(in crate::ike) const USE_TRANSPORT_MODE: u16 = 16391;
    pub(in crate::ike) const REKEY_SA: u16 = 16393;
    /// RFC 5723.
    pub(in crate::ike) const TICKET_NACK: u16 = 16412;
    pub(in crate::ike) const TICKET_OPAQUE: u16 = 16413;
    pub(in crate::ike) const FRAGMENTATION_SUPPORTED: u16 = 16430;
    /// RFC 7427 section 4.
    pub(in crate::ike) const SIGNATURE_HASH_ALGORITHMS: u16 = 16431;
    pub(in crate::ike) const INTERMEDIATE_EXCHANGE_SUPPORTED: u16 = 16438;
    pub(in crate::ike) const ADDITIONAL_KEY_EXCHANGE: u16 = 16441;
    /// Our own, in the private range of status types: see `word`.
    pub(in crate::ike) const HOSTSEAL_WORD: u16 = 40960 + 0x5ea1;
    /// What a host tells of itself, for whoever uses the engine: see [`Settings`](crate::ike::Settings).
    pub(in crate::ike) const HOSTSEAL_ABOUT: u16 = 40960 + 0x5ea2;
    /// Our own: see `life`.
    pub(in crate::ike) const HOSTSEAL_LIFE: u16 = 40960 + 0x5ea3;

    /// The name of an error, for people.
    pub(in crate::ike) fn name(kind: u16) -> String {
        let name = match kind {
            UNSUPPORTED_CRITICAL_PAYLOAD => "UNSUPPORTED_CRITICAL_PAYLOAD",
            INVALID_SYNTAX => "INVALID_SYNTAX",
            NO_PROPOSAL_CHOSEN => "NO_PROPOSAL_CHOSEN",
            INVALID_KE_PAYLOAD => "INVALID_KE_PAYLOAD",
            AUTHENTICATION_FAILED => "AUTHENTICATION_FAILED",
            NO_ADDITIONAL_SAS => "NO_ADDITIONAL_SAS",
            TS_UNACCEPTABLE => "TS_UNACCEPTABLE",
            TEMPORARY_FAILURE => "TEMPORARY_FAILURE",
            CHILD_SA_NOT_FOUND => "CHILD_SA_NOT_FOUND",
            STATE_NOT_FOUND => "STATE_NOT_FOUND",
            TICKET_NACK => "TICKET_NACK",
            _ => return format!("error {kind}"),
        };
        name.to_owned()
    }
}
