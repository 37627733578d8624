//! Hosts that prove themselves with certificates of one CA, to each other and to stock strongSwan.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::keys::{KEY, finish, key};
use super::{await_protected, await_sealed};
use crate::lab::agent::{CONFIG, SECRETS, hostseal, hostseal_all, status_until};
use crate::lab::{Cluster, Connection, Family, Host, Lab, Peer as _, Proof, Swan};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("certificates::hosts_of_one_ca", 2, hosts_of_one_ca),
    Test::new("certificates::a_host_of_another_ca_stays_out", 2, a_host_of_another_ca_stays_out),
    Test::new(
        "certificates::a_host_that_is_revoked_at_work_is_out",
        2,
        a_host_that_is_revoked_at_work_is_out,
    ),
    Test::new("certificates::strongswan_answers", 2, |lab| strongswan(lab, ["ed25519", "ecdsa-p256"], false)),
    Test::new("certificates::strongswan_initiates", 2, |lab| {
        strongswan(lab, ["ecdsa-p256", "ed25519"], true)
    }),
];

const CERTIFICATE: &str = "/etc/hostseal/certificate.pem";
const CA: &str = "/etc/hostseal/ca.pem";
pub(crate) const CRL: &str = "/etc/hostseal/crl.pem";

/// How long the certificates of hosts are good where nothing depends on it.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A chain of CAs, of which the last one makes the certificates of hosts.
pub(crate) struct Ca {
    /// In PEM, the root first.
    pems: Vec<String>,
    issuers: Vec<Issuer<'static, KeyPair>>,
}

impl Ca {
    /// A root, and so many CAs below it.
    pub(crate) fn new(below: usize) -> Result<Self> {
        let (root, key) = (Self::params("lab root")?, KeyPair::generate()?);
        let pems = vec![root.self_signed(&key)?.pem()];
        let mut ca = Self { pems, issuers: vec![Issuer::new(root, key)] };
        for number in 1..=below {
            let (next, key) = (Self::params(&format!("lab hosts {number}"))?, KeyPair::generate()?);
            ca.pems.push(next.signed_by(&key, ca.issuer())?.pem());
            ca.issuers.push(Issuer::new(next, key));
        }
        Ok(ca)
    }

    /// The one that makes the certificates of hosts.
    fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuers[self.issuers.len() - 1]
    }

    /// All CAs in PEM.
    pub(crate) fn all(&self) -> Vec<String> {
        self.pems.clone()
    }

    /// Those between a host and the root, the host's own first.
    fn below(&self) -> String {
        self.pems[1..].iter().rev().cloned().collect()
    }

    fn params(name: &str) -> Result<CertificateParams> {
        let mut params = CertificateParams::new([])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 1, 1));
        Ok(params)
    }

    /// The certificate of a host, whose number is its serial number, for `names`.
    pub(crate) fn certify(&self, host: &Host, names: &[String]) -> Result<String> {
        self.certify_until(host, names, SystemTime::now() + A_YEAR)
    }

    /// One that ends then.
    fn certify_until(&self, host: &Host, names: &[String], ends: SystemTime) -> Result<String> {
        let ends = date_time_ymd(1970, 1, 1) + ends.duration_since(SystemTime::UNIX_EPOCH)?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, host.name());
        params.serial_number = Some(SerialNumber::from(u64::from(host.number())));
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), ends);
        let key = KeyPair::from_pem(&host.read(KEY)?)?;
        Ok(params.signed_by(&key, self.issuer())?.pem())
    }

    /// The lists of all CAs; that of the last one has the hosts in `revoked`.
    fn lists(&self, revoked: &[&Host]) -> Result<String> {
        let revoke = |host: &&Host| RevokedCertParams {
            serial_number: SerialNumber::from(u64::from(host.number())),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = |revoked_certs, issuer: &Issuer<'static, KeyPair>| -> Result<String> {
            let params = CertificateRevocationListParams {
                this_update: date_time_ymd(2025, 1, 1),
                next_update: date_time_ymd(2049, 1, 1),
                crl_number: SerialNumber::from(1u64),
                issuing_distribution_point: None,
                revoked_certs,
                key_identifier_method: KeyIdMethod::Sha256,
            };
            Ok(params.signed_by(issuer)?.pem()?)
        };
        let above = &self.issuers[..self.issuers.len() - 1];
        let mut lists = above.iter().map(|issuer| list(Vec::new(), issuer)).collect::<Result<String>>()?;
        lists += &list(revoked.iter().map(revoke).collect(), self.issuer())?;
        Ok(lists)
    }

    /// Gives a host of hostseal a key of that `kind`, a certificate for `names`, and all else that it needs.
    pub(crate) fn install(&self, cluster: &Cluster, host: &Host, kind: &str, names: &[String]) -> Result<()> {
        self.install_until(cluster, host, kind, names, SystemTime::now() + A_YEAR)
    }

    /// The same with a certificate that ends then.
    pub(crate) fn install_until(
        &self,
        cluster: &Cluster,
        host: &Host,
        kind: &str,
        names: &[String],
        ends: SystemTime,
    ) -> Result<()> {
        key(host, kind)?;
        let own = self.certify_until(host, names, ends)?;
        host.write(CERTIFICATE, &format!("{own}{}", self.below()), 0o644)?;
        host.write(CA, &self.pems[0], 0o644)?;
        host.write(CRL, &self.lists(&[])?, 0o644)?;
        host.write(CONFIG, &cluster.text(), 0o644)
    }
}

pub(super) fn certified(lab: &Lab) -> Cluster {
    let auth = format!("method = \"certificate\"\ncrl = \"{CRL}\"");
    Cluster::of_v4(lab.hosts()).with("auth", &auth)
}

/// One by its name, one by its address.
fn hosts_of_one_ca(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let (ca, cluster) = (Ca::new(1)?, certified(lab));
    ca.install(&cluster, &a, "ed25519", &[a.name().to_owned()])?;
    ca.install(&cluster, &b, "ecdsa-p256", &[b.v4().to_string()])?;
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 20s")? {
        outcome.expect_code(0)?;
    }
    lab.hosts().iter().try_for_each(await_protected)?;
    status_until(&a, "status says how b has proven itself", Duration::from_secs(5), |status| {
        status.peer(b.v4().into()).is_ok_and(|row| row.at("/authentication") == "certificate")
    })?;
    ensure!(a.ping(&b, Family::V4, 5)? == 5);
    Ok(())
}

/// Its certificate is right in everything but who signed it.
fn a_host_of_another_ca_stays_out(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let (ours, theirs, cluster) = (Ca::new(1)?, Ca::new(1)?, certified(lab));
    ours.install(&cluster, &a, "ed25519", &[a.v4().to_string()])?;
    ours.install(&cluster, &b, "ed25519", &[b.v4().to_string()])?;
    b.write(
        CERTIFICATE,
        &format!("{}{}", theirs.certify(&b, &[b.v4().to_string()])?, theirs.below()),
        0o644,
    )?;
    let check = hostseal(&b, "config check")?.expect_code(2)?;
    ensure!(check.stderr.contains("is not issued by a CA of auth.ca"), "{}", check.stderr);
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 2s")? {
        outcome.expect_code(3)?;
    }
    await_refused(&a, &b, "clear", "is not issued by a CA of auth.ca")
}

/// a takes the changed list while the pair is at work.
fn a_host_that_is_revoked_at_work_is_out(lab: &mut Lab) -> Result<()> {
    let [a, b] = lab.all();
    let (ca, cluster) = (Ca::new(1)?, certified(lab).with("keying", "rekey_after = \"4s\""));
    for host in lab.hosts() {
        ca.install(&cluster, host, "ed25519", &[host.v4().to_string()])?;
    }
    for outcome in hostseal_all(lab.hosts(), "enable --timeout 20s")? {
        outcome.expect_code(0)?;
    }
    lab.hosts().iter().try_for_each(await_sealed)?;
    a.write(CRL, &ca.lists(&[&b])?, 0o644)?;
    await_refused(&a, &b, "blocked", "is revoked")
}

/// Waits until both ends name the reason: the one that refuses why, the other one that it was refused.
fn await_refused(refuses: &Host, refused: &Host, state: &str, words: &str) -> Result<()> {
    for (host, other, words) in [(refuses, refused, words), (refused, refuses, "rejected our authentication")]
    {
        status_until(host, "the row says why", Duration::from_secs(20), |status| {
            status.peer(other.v4().into()).is_ok_and(|row| {
                let reason = row.at("/reason").as_str().unwrap_or_default().to_owned();
                let codes = [row.at("/state"), row.at("/reason_code")];
                codes == [state, "auth_failed"] && reason.contains(words)
            })
        })?;
    }
    Ok(())
}

/// hostseal on a, strongSwan on b, with these kinds of keys.
fn strongswan(lab: &mut Lab, kinds: [&str; 2], starts: bool) -> Result<()> {
    let [a, b] = lab.all();
    let (ca, cluster) = (Ca::new(1)?, certified(lab));
    ca.install(&cluster, &a, kinds[0], &[a.v4().to_string()])?;
    hostseal(&a, "enable --no-wait")?.expect_code(0)?;

    key(&b, kinds[1])?;
    let swan = Swan::start(&b, &[])?;
    let own = ca.certify(&b, &[b.v4().to_string()])?;
    let proof = Proof::Certificate { private: b.read(KEY)?, own, cas: ca.all() };
    swan.load(&[Connection::between(&b, &a, Family::V4, SECRETS[0]).proof(proof).starts(starts)])?;
    finish(lab, &a, &b, &swan)
}
