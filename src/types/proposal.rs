//! What hosts may agree on, in strongSwan's notation: `aes256gcm16-prfsha384-x25519` for an IKE SA,
//! `aes256gcm16-esn` or `aes256gcm16-x25519-esn` for its children. A proposal names one algorithm of each kind, or several, best first.

use std::fmt;
use std::str::FromStr;

use super::EspSuite;

/// How the messages of an IKE SA are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IkeCipher {
    /// AES-GCM with a 16-octet tag, and a key of so many bits (RFC 5282).
    AesGcm16(u16),
    /// AES-CBC with a key of so many bits (RFC 3602); it needs an [`Integrity`] beside it.
    AesCbc(u16),
}

/// How messages are authenticated whose cipher does not do it (RFC 4868).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Integrity {
    /// AUTH_HMAC_SHA2_256_128.
    HmacSha256,
    /// AUTH_HMAC_SHA2_384_192.
    HmacSha384,
}

/// The pseudo-random functions of IKEv2 that are HMACs (RFC 4868).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prf {
    /// PRF_HMAC_SHA2_256.
    HmacSha256,
    /// PRF_HMAC_SHA2_384.
    HmacSha384,
    /// PRF_HMAC_SHA2_512.
    HmacSha512,
}

/// A Diffie-Hellman group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Curve25519 (RFC 8031).
    X25519,
    /// The NIST curve P-256 (RFC 5903).
    EcpP256,
    /// The NIST curve P-384 (RFC 5903).
    EcpP384,
}

/// A key exchange after the one with a [`Group`], whose secret the keys need too (RFC 9370).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdditionalKe {
    /// ML-KEM-768 (FIPS 203, draft-ietf-ipsecme-ikev2-mlkem).
    MlKem768,
}

/// The key exchange that keys come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyExchange {
    /// The group of its first part.
    pub group: Group,
    /// What comes in addition.
    pub additional: Option<AdditionalKe>,
}

/// What an IKE SA may be made with. Its ciphers are all authenticated by themselves, and then it names no
/// integrity, or none of them is, and then it does (RFC 5282 section 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeProposal {
    /// At least one.
    pub ciphers: Vec<IkeCipher>,
    /// None beside AES-GCM, else at least one.
    pub integrity: Vec<Integrity>,
    /// At least one.
    pub prfs: Vec<Prf>,
    /// At least one.
    pub groups: Vec<Group>,
    /// One of these comes in addition; none where it is empty.
    pub additional: Vec<AdditionalKe>,
}

/// What a child may be made with: AES-GCM with a 16-octet tag. Where it names a group, the child has its own
/// key exchange, unless it comes with its IKE SA, whose exchange is as fresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspProposal {
    /// Bits of the key, 128 or 256; at least one.
    pub key_bits: Vec<u16>,
    /// One of these is required; where it is empty, the keys come from those of the IKE SA alone.
    pub groups: Vec<Group>,
    /// One of these comes in addition; none where it is empty, as it is without a group.
    pub additional: Vec<AdditionalKe>,
    /// With extended sequence numbers, or without; at least one.
    pub esn: Vec<bool>,
}

/// Proposals, best first; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposals<P>(Vec<P>);

impl<P> Proposals<P> {
    /// These; `None` if they are none.
    pub fn new(proposals: Vec<P>) -> Option<Self> {
        (!proposals.is_empty()).then_some(Self(proposals))
    }

    /// All of them, best first.
    pub fn iter(&self) -> std::slice::Iter<'_, P> {
        self.0.iter()
    }
}

impl Group {
    /// All of them, best first.
    const ALL: [Self; 3] = [Group::X25519, Group::EcpP384, Group::EcpP256];
}

impl Default for Proposals<IkeProposal> {
    /// All that is known, the best first: key exchanges that a quantum computer cannot break come first, CBC last.
    fn default() -> Self {
        let prfs = vec![Prf::HmacSha384, Prf::HmacSha512, Prf::HmacSha256];
        let groups = Group::ALL.to_vec();
        let gcm = IkeProposal {
            ciphers: vec![IkeCipher::AesGcm16(256), IkeCipher::AesGcm16(128)],
            integrity: Vec::new(),
            prfs,
            groups,
            additional: Vec::new(),
        };
        let hybrid = IkeProposal { additional: vec![AdditionalKe::MlKem768], ..gcm.clone() };
        let cbc = IkeProposal {
            ciphers: vec![IkeCipher::AesCbc(256)],
            integrity: vec![Integrity::HmacSha384, Integrity::HmacSha256],
            ..gcm.clone()
        };
        Self(vec![hybrid, gcm, cbc])
    }
}

impl Default for Proposals<EspProposal> {
    fn default() -> Self {
        Self::of_key_bits(256)
    }
}

impl Proposals<EspProposal> {
    /// Keys of `key_bits` bits, with extended sequence numbers where the peer can, and with their own key exchange
    /// where the peer insists on one.
    pub fn of_key_bits(key_bits: u16) -> Self {
        let plain = EspProposal {
            key_bits: vec![key_bits],
            groups: Vec::new(),
            additional: Vec::new(),
            esn: vec![true, false],
        };
        let classical = EspProposal { groups: Group::ALL.to_vec(), ..plain.clone() };
        let hybrid = EspProposal { additional: vec![AdditionalKe::MlKem768], ..classical.clone() };
        Self(vec![plain, hybrid, classical])
    }

    /// This alone, without a key exchange.
    pub fn of_suite(EspSuite { key_bits, esn }: EspSuite) -> Self {
        let (groups, additional) = (Vec::new(), Vec::new());
        Self(vec![EspProposal { key_bits: vec![key_bits], groups, additional, esn: vec![esn] }])
    }

    /// The same without key exchanges, for a child that never has one.
    pub fn without_key_exchange(&self) -> Self {
        let mut left: Vec<EspProposal> = Vec::new();
        for proposal in self.iter() {
            let plain = EspProposal { groups: Vec::new(), additional: Vec::new(), ..proposal.clone() };
            if !left.contains(&plain) {
                left.push(plain);
            }
        }
        Self(left)
    }

    /// What is liked best of all; `None` for a proposal that names nothing.
    pub fn best(&self) -> Option<EspSuite> {
        let EspProposal { key_bits, esn, .. } = self.iter().next()?;
        Some(EspSuite { key_bits: *key_bits.first()?, esn: *esn.first()? })
    }

    /// The key exchange that is liked best; `None` for none.
    pub fn best_key_exchange(&self) -> Option<KeyExchange> {
        let EspProposal { groups, additional, .. } = self.iter().next()?;
        Some(KeyExchange { group: *groups.first()?, additional: additional.first().copied() })
    }

    /// Whether an SA of `suite` is to be replaced when these take the place of `before`: it is not the best any more.
    pub fn replace(&self, before: &Self, suite: EspSuite) -> bool {
        self != before && self.best() != Some(suite)
    }

    /// The size of all keys, in bits, where there is but one.
    pub fn only_key_bits(&self) -> Option<u16> {
        let mut sizes = self.iter().flat_map(|proposal| &proposal.key_bits);
        let first = *sizes.next()?;
        sizes.all(|size| *size == first).then_some(first)
    }
}

/// One keyword of a proposal for an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IkeKeyword {
    Cipher(IkeCipher),
    Integrity(Integrity),
    Prf(Prf),
    Group(Group),
    Additional(AdditionalKe),
}

/// One keyword of a proposal for a child.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EspKeyword {
    KeyBits(u16),
    Group(Group),
    Additional(AdditionalKe),
    Esn(bool),
}

/// The keywords with their names. One with two names is shown by the first.
type Keywords<W> = [(&'static str, W)];

const IKE_KEYWORDS: &Keywords<IkeKeyword> = &[
    ("aes256gcm16", IkeKeyword::Cipher(IkeCipher::AesGcm16(256))),
    ("aes128gcm16", IkeKeyword::Cipher(IkeCipher::AesGcm16(128))),
    ("aes256", IkeKeyword::Cipher(IkeCipher::AesCbc(256))),
    ("sha256", IkeKeyword::Integrity(Integrity::HmacSha256)),
    ("sha384", IkeKeyword::Integrity(Integrity::HmacSha384)),
    ("prfsha256", IkeKeyword::Prf(Prf::HmacSha256)),
    ("prfsha384", IkeKeyword::Prf(Prf::HmacSha384)),
    ("prfsha512", IkeKeyword::Prf(Prf::HmacSha512)),
    ("x25519", IkeKeyword::Group(Group::X25519)),
    ("curve25519", IkeKeyword::Group(Group::X25519)),
    ("ecp256", IkeKeyword::Group(Group::EcpP256)),
    ("ecp384", IkeKeyword::Group(Group::EcpP384)),
    ("ke1_mlkem768", IkeKeyword::Additional(AdditionalKe::MlKem768)),
];

const ESP_KEYWORDS: &Keywords<EspKeyword> = &[
    ("aes256gcm16", EspKeyword::KeyBits(256)),
    ("aes128gcm16", EspKeyword::KeyBits(128)),
    ("x25519", EspKeyword::Group(Group::X25519)),
    ("curve25519", EspKeyword::Group(Group::X25519)),
    ("ecp256", EspKeyword::Group(Group::EcpP256)),
    ("ecp384", EspKeyword::Group(Group::EcpP384)),
    ("ke1_mlkem768", EspKeyword::Additional(AdditionalKe::MlKem768)),
    ("esn", EspKeyword::Esn(true)),
    ("noesn", EspKeyword::Esn(false)),
];

/// The names of the keywords in `known` that are `wanted`, for people.
fn names<W>(known: &Keywords<W>, wanted: impl Fn(&W) -> bool) -> String {
    let names: Vec<&str> =
        known.iter().filter(|(_, keyword)| wanted(keyword)).map(|(name, _)| *name).collect();
    names.join(", ")
}

/// Takes `text` apart into keywords, each once.
fn keywords<W: Copy + PartialEq>(text: &str, known: &Keywords<W>) -> Result<Vec<W>, String> {
    let mut keywords = Vec::new();
    for name in text.split('-') {
        let keyword = known.iter().find(|(known, _)| *known == name).map(|(_, keyword)| *keyword);
        let keyword = keyword.ok_or_else(|| {
            let all = names(known, |_| true);
            format!("\"{name}\" in \"{text}\" is not known here; known: {all}")
        })?;
        if keywords.contains(&keyword) {
            return Err(format!("\"{text}\" names \"{name}\" twice"));
        }
        keywords.push(keyword);
    }
    Ok(keywords)
}

/// Writes `keywords` by their names.
fn write<W: PartialEq>(
    f: &mut fmt::Formatter<'_>,
    known: &Keywords<W>,
    keywords: impl Iterator<Item = W>,
) -> fmt::Result {
    let name = |keyword| known.iter().find(|(_, known)| *known == keyword).map(|(name, _)| *name);
    let names: Vec<&str> = keywords.filter_map(name).collect();
    f.write_str(&names.join("-"))
}

impl FromStr for IkeProposal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut read =
            Self { ciphers: vec![], integrity: vec![], prfs: vec![], groups: vec![], additional: vec![] };
        for keyword in keywords(text, IKE_KEYWORDS)? {
            match keyword {
                IkeKeyword::Cipher(cipher) => read.ciphers.push(cipher),
                IkeKeyword::Integrity(integrity) => read.integrity.push(integrity),
                IkeKeyword::Prf(prf) => read.prfs.push(prf),
                IkeKeyword::Group(group) => read.groups.push(group),
                IkeKeyword::Additional(additional) => read.additional.push(additional),
            }
        }
        read.completed(text)
    }
}

impl IkeProposal {
    /// The part that the secret comes from, in the same notation; `None` where it names no group.
    pub fn key_exchange(&self) -> Option<String> {
        let nothing_else = Self { ciphers: vec![], integrity: vec![], prfs: vec![], ..self.clone() };
        Some(nothing_else.to_string()).filter(|text| !text.is_empty())
    }

    /// Whether its ciphers need no integrity beside them.
    pub fn is_authenticated(&self) -> bool {
        self.ciphers.iter().all(|cipher| matches!(cipher, IkeCipher::AesGcm16(_)))
    }

    /// Adds what `text` leaves to be understood, and checks that nothing is missing or too much.
    fn completed(mut self, text: &str) -> Result<Self, String> {
        let missing = |what: &str, wanted: fn(&IkeKeyword) -> bool| {
            Err(format!("\"{text}\" names no {what}: add one of {}", names(IKE_KEYWORDS, wanted)))
        };
        let authenticated = self.is_authenticated();
        // As strongSwan reads it: without a prf, the hash of the integrity is meant for it too.
        if self.prfs.is_empty() {
            self.prfs.extend(self.integrity.iter().map(|integrity| integrity.prf()));
            self.integrity.retain(|_| !authenticated);
        }
        if self.ciphers.is_empty() {
            return missing("cipher", |keyword| matches!(keyword, IkeKeyword::Cipher(_)));
        }
        if !authenticated && self.ciphers.iter().any(|cipher| matches!(cipher, IkeCipher::AesGcm16(_))) {
            return Err(format!("\"{text}\" names ciphers with and without \"gcm16\": make two of it"));
        }
        if !authenticated && self.integrity.is_empty() {
            return missing("integrity", |keyword| matches!(keyword, IkeKeyword::Integrity(_)));
        }
        if authenticated && !self.integrity.is_empty() {
            return Err(format!("\"{text}\" names an integrity, and AES-GCM needs none: leave it out"));
        }
        if self.prfs.is_empty() {
            return missing("prf", |keyword| matches!(keyword, IkeKeyword::Prf(_)));
        }
        if self.groups.is_empty() {
            return missing("group", |keyword| matches!(keyword, IkeKeyword::Group(_)));
        }
        Ok(self)
    }
}

impl FromStr for EspProposal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let missing = |what: &str, wanted: fn(&EspKeyword) -> bool| {
            Err(format!("\"{text}\" names no {what}: add one of {}", names(ESP_KEYWORDS, wanted)))
        };
        let mut read = Self { key_bits: vec![], groups: vec![], additional: vec![], esn: vec![] };
        for keyword in keywords(text, ESP_KEYWORDS)? {
            match keyword {
                EspKeyword::KeyBits(bits) => read.key_bits.push(bits),
                EspKeyword::Group(group) => read.groups.push(group),
                EspKeyword::Additional(additional) => read.additional.push(additional),
                EspKeyword::Esn(esn) => read.esn.push(esn),
            }
        }
        if read.key_bits.is_empty() {
            return missing("cipher", |keyword| matches!(keyword, EspKeyword::KeyBits(_)));
        }
        // RFC 9370 section 2.2.1: it comes after another.
        if read.groups.is_empty() && !read.additional.is_empty() {
            return missing("group", |keyword| matches!(keyword, EspKeyword::Group(_)));
        }
        if read.esn.is_empty() {
            read.esn.extend([true, false]);
        }
        Ok(read)
    }
}

impl Integrity {
    /// The prf with the same hash.
    fn prf(self) -> Prf {
        match self {
            Integrity::HmacSha256 => Prf::HmacSha256,
            Integrity::HmacSha384 => Prf::HmacSha384,
        }
    }
}

impl fmt::Display for KeyExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let additional = self.additional.map(IkeKeyword::Additional);
        write(f, IKE_KEYWORDS, [IkeKeyword::Group(self.group)].into_iter().chain(additional))
    }
}

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keywords = self.ciphers.iter().map(|it| IkeKeyword::Cipher(*it));
        let keywords = keywords.chain(self.integrity.iter().map(|it| IkeKeyword::Integrity(*it)));
        let keywords = keywords.chain(self.prfs.iter().map(|it| IkeKeyword::Prf(*it)));
        let keywords = keywords.chain(self.groups.iter().map(|it| IkeKeyword::Group(*it)));
        write(f, IKE_KEYWORDS, keywords.chain(self.additional.iter().map(|it| IkeKeyword::Additional(*it))))
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keywords = self.key_bits.iter().map(|it| EspKeyword::KeyBits(*it));
        let keywords = keywords.chain(self.groups.iter().map(|it| EspKeyword::Group(*it)));
        let keywords = keywords.chain(self.additional.iter().map(|it| EspKeyword::Additional(*it)));
        write(f, ESP_KEYWORDS, keywords.chain(self.esn.iter().map(|it| EspKeyword::Esn(*it))))
    }
}

impl<P: fmt::Display> fmt::Display for Proposals<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.iter().map(P::to_string).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proposals_are_read_and_shown() {
        for (text, shown) in [
            ("aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519"),
            ("ecp256-prfsha256-aes128gcm16", "aes128gcm16-prfsha256-ecp256"),
            ("aes256-sha256-ecp384", "aes256-sha256-prfsha256-ecp384"),
            ("aes256-sha256-sha384-prfsha512-curve25519", "aes256-sha256-sha384-prfsha512-x25519"),
            ("aes256gcm16-sha384-x25519", "aes256gcm16-prfsha384-x25519"),
            ("aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519-ke1_mlkem768"),
            (
                "aes128gcm16-aes256gcm16-prfsha256-ecp384-ecp256",
                "aes128gcm16-aes256gcm16-prfsha256-ecp384-ecp256",
            ),
        ] {
            let proposal: IkeProposal = text.parse().unwrap();
            assert_eq!(proposal.to_string(), shown);
            assert_eq!(shown.parse(), Ok(proposal), "{shown}");
        }
        for (text, shown) in [
            ("aes256gcm16-esn", "aes256gcm16-esn"),
            ("aes128gcm16-noesn", "aes128gcm16-noesn"),
            ("aes256gcm16-esn-x25519", "aes256gcm16-x25519-esn"),
            ("aes256gcm16-curve25519-ke1_mlkem768-esn", "aes256gcm16-x25519-ke1_mlkem768-esn"),
            ("aes128gcm16-ecp384-ecp256", "aes128gcm16-ecp384-ecp256-esn-noesn"),
            ("aes256gcm16", "aes256gcm16-esn-noesn"),
            ("noesn-aes128gcm16-aes256gcm16", "aes128gcm16-aes256gcm16-noesn"),
        ] {
            let proposal: EspProposal = text.parse().unwrap();
            assert_eq!(proposal.to_string(), shown);
            assert_eq!(shown.parse(), Ok(proposal), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("", "\"\" in \"\" is not known here; known: aes256gcm16, aes128gcm16, aes256, sha256"),
            (
                "aes256gcm16-prfsha384-modp2048",
                "\"modp2048\" in \"aes256gcm16-prfsha384-modp2048\" is not known",
            ),
            ("aes256gcm16-prfsha384-x25519-curve25519", "names \"curve25519\" twice"),
            ("prfsha384-x25519", "names no cipher: add one of aes256gcm16, aes128gcm16, aes256"),
            ("aes256gcm16-x25519", "names no prf: add one of prfsha256, prfsha384, prfsha512"),
            (
                "aes256gcm16-prfsha384-ke1_mlkem768",
                "names no group: add one of x25519, curve25519, ecp256, ecp384",
            ),
            ("aes256-prfsha256-ecp256", "names no integrity: add one of sha256, sha384"),
            ("aes256-aes256gcm16-sha256-ecp256", "make two of it"),
            ("aes256gcm16-sha256-prfsha384-x25519", "AES-GCM needs none"),
        ] {
            let error = text.parse::<IkeProposal>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (text, part) in [
            (
                "aes256gcm16-modp2048",
                "\"modp2048\" in \"aes256gcm16-modp2048\" is not known here; known: aes256gcm16",
            ),
            ("aes256gcm16-ke1_mlkem768", "names no group: add one of x25519, curve25519, ecp256, ecp384"),
            ("aes256gcm16-x25519-curve25519", "names \"curve25519\" twice"),
            ("esn", "names no cipher: add one of aes256gcm16, aes128gcm16"),
            ("aes256gcm16-esn-esn", "names \"esn\" twice"),
        ] {
            let error = text.parse::<EspProposal>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_default_can_be_written_down() {
        let default = Proposals::<IkeProposal>::default();
        assert_eq!(
            default.to_string(),
            "aes256gcm16-aes128gcm16-prfsha384-prfsha512-prfsha256-x25519-ecp384-ecp256-ke1_mlkem768, \
             aes256gcm16-aes128gcm16-prfsha384-prfsha512-prfsha256-x25519-ecp384-ecp256, \
             aes256-sha384-sha256-prfsha384-prfsha512-prfsha256-x25519-ecp384-ecp256"
        );
        assert!(default.iter().all(|proposal| proposal.to_string().parse() == Ok(proposal.clone())));
        let default = Proposals::<EspProposal>::default();
        assert_eq!(
            default.to_string(),
            "aes256gcm16-esn-noesn, aes256gcm16-x25519-ecp384-ecp256-ke1_mlkem768-esn-noesn, \
             aes256gcm16-x25519-ecp384-ecp256-esn-noesn"
        );
        assert!(default.iter().all(|proposal| proposal.to_string().parse() == Ok(proposal.clone())));
        assert_eq!(Proposals::of_key_bits(128).only_key_bits(), Some(128));
    }

    #[test]
    fn what_is_left_without_a_key_exchange_is_said_once() {
        let left = |text: &str| {
            let all = text.split(", ").map(|text| text.parse::<EspProposal>().unwrap()).collect();
            Proposals::new(all).unwrap().without_key_exchange().to_string()
        };
        assert_eq!(Proposals::default().without_key_exchange().to_string(), "aes256gcm16-esn-noesn");
        assert_eq!(
            left("aes256gcm16-x25519-ke1_mlkem768-esn, aes128gcm16-ecp384, aes256gcm16-esn"),
            "aes256gcm16-esn, aes128gcm16-esn-noesn"
        );
    }

    #[test]
    fn what_is_liked_best_is_what_stands_first() {
        let of = |text: &str| Proposals::new(vec![text.parse::<EspProposal>().unwrap()]).unwrap();
        let exchange = |text: &str| of(text).best_key_exchange().map(|it| it.to_string());
        assert_eq!(exchange("aes256gcm16"), None);
        assert_eq!(exchange("aes256gcm16-ecp384-x25519").as_deref(), Some("ecp384"));
        assert_eq!(exchange("aes256gcm16-ke1_mlkem768-x25519").as_deref(), Some("x25519-ke1_mlkem768"));
        assert_eq!(Proposals::<EspProposal>::default().best_key_exchange(), None);
    }
}
