use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::*;
use crate::identity::{KeyKind, PrivateKey};

/// A CA for tests: valid from 2020 to 2040, as are the certificates that it makes unless they say otherwise.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// What a test has to say about a certificate.
pub(crate) type Change = fn(&mut CertificateParams);

/// A time at which all is well: 2026.
pub(crate) const NOW: UnixTime = UnixTime(1_767_225_600);

fn params(name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    params
}

impl Ca {
    /// One that signs itself.
    pub(crate) fn new(name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// One that this one signs.
    pub(crate) fn below(&self, name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate of `other` for this one.
    fn signed_by(&self, name: &str, other: &Ca) -> String {
        Self::params(name).signed_by(self.issuer.key(), &other.issuer).unwrap().pem()
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// A certificate of the key in `pem` for these names.
    pub(crate) fn certify(&self, key: &str, names: &[&str], change: Change) -> String {
        let mut params = params("host", names);
        params.serial_number = Some(SerialNumber::from(7u64));
        change(&mut params);
        params.signed_by(&KeyPair::from_pem(key).unwrap(), &self.issuer).unwrap().pem()
    }

    /// A revocation list with these numbers, that is out of date.
    pub(crate) fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(2025, 2, 1),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    pub(crate) fn authorities(&self) -> Authorities {
        Authorities::from_pem(&self.pem).unwrap()
    }
}

fn key() -> String {
    PrivateKey::generate(KeyKind::Ed25519).unwrap().to_string()
}

fn name() -> NodeName {
    serde_json::from_str("\"b.example\"").unwrap()
}

/// What `authorities` say about `chain` as one of b.example at 10.0.0.2 and fd00::2.
fn verify(authorities: &Authorities, chain: &str, now: UnixTime) -> Result<(), CertificateError> {
    let addresses = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    let subject = Subject { node: &name(), addresses: &addresses };
    authorities.verify(&Chain::from_pem(chain)?, now, subject)
}

fn unchanged(_: &mut CertificateParams) {}

#[test]
fn a_certificate_of_our_ca_proves_the_key_that_it_is_about() {
    let ca = Ca::new("ours");
    for kind in [KeyKind::Ed25519, KeyKind::EcdsaP256, KeyKind::EcdsaP384] {
        let pem = PrivateKey::generate(kind).unwrap();
        for names in [&["10.0.0.2"][..], &["fd00::2"], &["b.example"], &["B.Example"], &["x", "b.example"]] {
            let chain = ca.certify(&pem, names, unchanged);
            assert_eq!(verify(&ca.authorities(), &chain, NOW), Ok(()));
            let found = Chain::from_pem(&chain).unwrap().public_key().unwrap();
            assert_eq!(&found, PrivateKey::from_pem(&pem).unwrap().public());
        }
    }
}

#[test]
fn a_certificate_for_somebody_else_is_refused() {
    let ca = Ca::new("ours");
    for names in [&["10.0.0.3"][..], &["a.example"], &["*.example"], &["b.example.org"], &["b"], &[]] {
        let found = verify(&ca.authorities(), &ca.certify(&key(), names, unchanged), NOW).unwrap_err();
        assert!(matches!(found, CertificateError::OtherName { .. }), "{names:?}: {found}");
        assert!(
            found
                .to_string()
                .contains("not for node b.example: it has neither that name nor 10.0.0.2 or fd00::2")
        );
    }
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    let (ours, theirs) = (Ca::new("ours"), Ca::new("ours"));
    let chain = theirs.certify(&key(), &["b.example"], unchanged);
    for sent in [chain.clone(), format!("{chain}{}", theirs.pem), format!("{chain}{}", ours.pem)] {
        let found = verify(&ours.authorities(), &sent, NOW).unwrap_err();
        assert!(matches!(found, CertificateError::UnknownIssuer | CertificateError::Unusable(_)), "{found}");
    }
    let found = verify(&ours.authorities(), &chain, NOW);
    assert_eq!(found, Err(CertificateError::UnknownIssuer), "though it has the name of ours");
    let both = Authorities::from_pem(&format!("{}{}", ours.pem, theirs.pem)).unwrap();
    assert!(verify(&both, &chain, NOW).is_ok());
    assert_eq!(both.names().len(), 40);
}

#[test]
fn time_is_an_argument() {
    let ca = Ca::new("ours");
    let chain = ca.certify(&key(), &["b.example"], |params| {
        params.not_before = date_time_ymd(2025, 6, 1);
        params.not_after = date_time_ymd(2026, 6, 1);
    });
    assert!(verify(&ca.authorities(), &chain, NOW).is_ok());
    let early = verify(&ca.authorities(), &chain, UnixTime(NOW.0 - 300 * 86_400)).unwrap_err();
    assert!(early.to_string().contains("not valid before 2025-06-01T00:00:00Z"), "{early}");
    let late = verify(&ca.authorities(), &chain, UnixTime(NOW.0 + 300 * 86_400)).unwrap_err();
    assert!(late.to_string().contains("expired on 2026-06-01T00:00:00Z"), "{late}");
}

#[test]
fn a_purpose_counts_where_there_is_one() {
    let ca = Ca::new("ours");
    let with: [(Change, bool); 5] = [
        (unchanged, true),
        (
            |params| {
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17])]
            },
            true,
        ),
        (|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any], true),
        (|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], false),
        (
            |params| {
                let ike = ExtendedKeyUsagePurpose::Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 17]);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ike];
            },
            true,
        ),
    ];
    for (at, (change, taken)) in with.into_iter().enumerate() {
        let found = verify(&ca.authorities(), &ca.certify(&key(), &["b.example"], change), NOW);
        assert_eq!(found.is_ok(), taken, "{at}: {found:?}");
        assert!(taken || found == Err(CertificateError::Purpose));
    }
}

#[test]
fn chains_lead_to_the_ca() {
    let root = Ca::new("root");
    let [upper, lower] = [root.below("upper"), root.below("lower")];
    let lower_of_upper = upper.below("lowest");
    let own = lower_of_upper.certify(&key(), &["b.example"], unchanged);
    let whole = format!("{own}{}{}", lower_of_upper.pem, upper.pem);
    assert!(verify(&root.authorities(), &whole, NOW).is_ok());
    let mixed = format!("{own}{}{}{}", upper.pem, lower.pem, lower_of_upper.pem);
    assert!(verify(&root.authorities(), &mixed, NOW).is_ok(), "whatever order those above it have");
    for broken in [own.clone(), format!("{own}{}", upper.pem), format!("{own}{}", lower_of_upper.pem)] {
        assert_eq!(verify(&root.authorities(), &broken, NOW), Err(CertificateError::UnknownIssuer));
    }
    assert!(verify(&upper.authorities(), &format!("{own}{}", lower_of_upper.pem), NOW).is_ok());
    // A host cannot make itself a CA.
    let host = key();
    let not_a_ca = root.certify(&host, &["a.example"], unchanged);
    let mut forger = Ca::new("host");
    forger.issuer = Issuer::new(params("host", &[]), KeyPair::from_pem(&host).unwrap());
    let forged = format!("{}{not_a_ca}", forger.certify(&key(), &["b.example"], unchanged));
    assert!(verify(&root.authorities(), &forged, NOW).is_err());
    let long = own.repeat(CHAIN_MAX + 1);
    assert_eq!(verify(&root.authorities(), &long, NOW), Err(CertificateError::TooMany));
}

/// Each of them could have issued each: all ways from one to the next would be tried, with a signature each.
#[test]
fn cas_of_one_name_with_different_keys_are_refused() {
    let ours = Ca::new("ours");
    let forged: Vec<Ca> = (1..CHAIN_MAX).map(|_| Ca::new("ours")).collect();
    let own = forged[0].certify(&key(), &["b.example"], unchanged);
    let above: String = forged.iter().map(|ca| ca.pem.as_str()).collect();
    assert_eq!(verify(&ours.authorities(), &format!("{own}{above}"), NOW), Err(CertificateError::Ambiguous));
    // A CA that has certificates of several others has one key.
    let [old, new] = ["old", "new"].map(Ca::new);
    let own = new.certify(&key(), &["b.example"], unchanged);
    let crossed = new.signed_by("new", &old);
    for above in [format!("{crossed}{}", new.pem), format!("{}{crossed}", new.pem), crossed.repeat(2)] {
        assert_eq!(verify(&old.authorities(), &format!("{own}{above}"), NOW), Ok(()));
    }
    assert_eq!(verify(&new.authorities(), &format!("{own}{crossed}{}", new.pem), NOW), Ok(()));
}

#[test]
fn what_was_taken_back_is_refused() {
    let root = Ca::new("root");
    let below = root.below("below");
    let chain = format!("{}{}", below.certify(&key(), &["b.example"], unchanged), below.pem);
    let revoking = |lists: &[String]| {
        let mut authorities = root.authorities();
        authorities.revoke(&lists.concat()).unwrap();
        verify(&authorities, &chain, NOW)
    };
    assert_eq!(revoking(&[root.revoke(&[1]), below.revoke(&[8])]), Ok(()), "though the lists are old");
    assert_eq!(revoking(&[root.revoke(&[1]), below.revoke(&[8, 7])]), Err(CertificateError::Revoked));
    assert_eq!(revoking(&[root.revoke(&[1])]), Err(CertificateError::NoList));
    assert_eq!(revoking(&[below.revoke(&[8])]), Err(CertificateError::NoList));
    // A list that somebody else signed in the CA's name.
    let forged = revoking(&[root.revoke(&[1]), Ca::new("below").revoke(&[8])]);
    assert!(forged.is_err(), "{forged:?}");
}

#[test]
fn files_without_certificates_are_refused() {
    for text in ["", "no certificate", &key()] {
        assert_eq!(Chain::from_pem(text).err(), Some(CertificateError::None));
        assert_eq!(Authorities::from_pem(text).err(), Some(CertificateError::None));
        let list = Ca::new("ours").authorities().revoke(text);
        assert_eq!(list.err(), Some(CertificateError::NoRevocationList));
    }
    let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(Authorities::from_pem(garbled), Err(CertificateError::Unusable(_))));
    assert!(matches!(Chain::from_pem(garbled).unwrap().public_key(), Err(CertificateError::Unusable(_))));
}

proptest::proptest! {
    /// Whatever a peer sends, bit by bit beside the truth.
    #[test]
    fn a_changed_certificate_is_refused_or_the_same(at in proptest::prelude::any::<proptest::sample::Index>(), bit in 0..8u8) {
        let (ca, pem) = (Ca::new("ours"), key());
        let mut der = certificates(&ca.certify(&pem, &["b.example"], unchanged)).unwrap()[0].to_vec();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        let addresses = [];
        let subject = Subject { node: &name(), addresses: &addresses };
        let chain = Chain::from_der(std::iter::once(der.as_slice())).unwrap();
        proptest::prop_assert!(ca.authorities().verify(&chain, NOW, subject).is_err());
    }

    #[test]
    fn no_bytes_do_harm(der in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let chain = Chain::from_der(std::iter::repeat_n(der.as_slice(), 3)).unwrap();
        let subject = Subject { node: &name(), addresses: &[] };
        proptest::prop_assert!(chain.public_key().is_err());
        let authorities = Ca::new("ours").authorities();
        proptest::prop_assert!(authorities.verify(&chain, NOW, subject).is_err());
    }
}
