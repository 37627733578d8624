//! A course: hostseal and a stock peer by one description, from which both ends get their configuration.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::agent::{CONFIG, SECRETS, hostseal};
use crate::lab::packet;
use crate::lab::{
    Cluster, Connection, Direction, Family, Host, Implementation, Lab, Order, Packet, Peer, PpkOfEnd, Proof,
    Report, until,
};
use crate::scenarios::certificates::{CRL, Ca};
use crate::scenarios::keys::{KEY, base64, key};
use crate::scenarios::nat::Sites;
use crate::scenarios::strongswan::{IKE_AUTH, Role, exchange};

/// How both ends prove themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// With the secret.
    Secret,
    /// With raw public keys, Ed25519.
    Ed25519,
    /// With raw public keys, ECDSA on P-256.
    Ecdsa,
    /// With certificates: an ECDSA key here, an Ed25519 key there.
    Certificates,
}

impl Auth {
    /// The kinds of the keys, as `hostseal key generate` calls them: ours and the other's.
    pub fn kinds(self) -> [&'static str; 2] {
        match self {
            Self::Secret | Self::Ed25519 => ["ed25519"; 2],
            Self::Ecdsa => ["ecdsa-p256"; 2],
            Self::Certificates => ["ecdsa-p256", "ed25519"],
        }
    }
}

/// What is out of the ordinary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Nothing: IPv4, ESP by itself, extended sequence numbers.
    Plain,
    /// The peer has ordinary sequence numbers alone.
    NoEsn,
    /// IPv6.
    Ipv6,
    /// ESP in UDP: the end that begins insists on it.
    InUdp,
    /// The end that begins is behind a NAT.
    Nat,
    /// A chain of certificates that fits no packet, over a wire of 1,280 bytes.
    Narrow,
    /// A PPK (RFC 8784), without which neither end goes on.
    Ppk,
    /// A PPK without which both would go on.
    PpkOptional,
    /// A PPK that the other end does not know, so that both go on without.
    PpkUnknown,
    /// As [`Way::Ppk`], before IKE_AUTH (RFC 9867).
    EarlyPpk,
    /// As [`Way::PpkOptional`], likewise.
    EarlyPpkOptional,
    /// As [`Way::PpkUnknown`], likewise.
    EarlyPpkUnknown,
    /// None, or another one, in the place of the PPK that we require, one after the other.
    PpkDiffers,
    /// The same, likewise.
    EarlyPpkDiffers,
}

impl Way {
    /// Whether the PPK of both ends is to be in the keys.
    pub fn has_ppk(self) -> bool {
        matches!(self, Self::Ppk | Self::PpkOptional | Self::EarlyPpk | Self::EarlyPpkOptional)
    }

    /// Whether the peer is to have it there before IKE_AUTH.
    pub fn is_early(self) -> bool {
        matches!(
            self,
            Self::EarlyPpk | Self::EarlyPpkOptional | Self::EarlyPpkUnknown | Self::EarlyPpkDiffers
        )
    }
}

/// Where hostseal has its PPK.
pub const PPK: &str = "/etc/hostseal/ppk";
/// What both ends call it.
pub(super) const PPK_ID: &str = "lab-1";
/// What the other end calls one that we do not know.
pub(super) const OTHER_PPK_ID: &str = "lab-2";

/// Gives hostseal on `host` a PPK, and has its file say so.
///
/// # Errors
/// When it cannot be written.
pub fn with_ppk(cluster: Cluster, host: &Host, ppk: &PpkOfEnd) -> Result<Cluster> {
    let PpkOfEnd { id, key, required, .. } = ppk;
    host.write(PPK, key.as_deref().unwrap_or_default(), 0o600)?;
    Ok(cluster.with("ppk", &format!("id = \"{id}\"\nfile = \"{PPK}\"\nrequired = {required}")))
}

/// hostseal and a stock peer.
#[derive(Debug, Clone, Copy)]
pub struct Course {
    /// The other end.
    pub implementation: Implementation,
    /// Ours.
    pub role: Role,
    /// How both ends prove themselves.
    pub auth: Auth,
    /// What alone the peer makes IKE SAs with. hostseal has its default, and takes it.
    pub proposals: &'static str,
    /// What is out of the ordinary.
    pub way: Way,
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} | {}", self.implementation, self.words())
    }
}

impl Course {
    /// All but the peer's name, as cells of a table.
    pub fn words(&self) -> String {
        let peer = match self.role {
            Role::Initiator => "answers",
            Role::Responder => "initiates",
        };
        let auth = match self.auth {
            Auth::Secret => "secret",
            Auth::Ed25519 => "Ed25519",
            Auth::Ecdsa => "ECDSA",
            Auth::Certificates => "certificates",
        };
        let way = match self.way {
            Way::Plain => "",
            Way::NoEsn => "no ESN",
            Way::Ipv6 => "IPv6",
            Way::InUdp => "in UDP",
            Way::Nat => "behind a NAT",
            Way::Narrow => "long chain, MTU 1280",
            Way::Ppk => "PPK",
            Way::PpkOptional => "PPK, optional",
            Way::PpkUnknown => "PPK, unknown",
            Way::EarlyPpk => "PPK, early",
            Way::EarlyPpkOptional => "PPK, early, optional",
            Way::EarlyPpkUnknown => "PPK, early, unknown",
            Way::PpkDiffers => "PPK, differs",
            Way::EarlyPpkDiffers => "PPK, early, differs",
        };
        format!("{peer} | {auth} | {} | {way}", self.proposals)
    }
}

/// Both ends of a course.
pub struct Ends {
    /// What they are to be.
    pub course: Course,
    /// The hosts, and where they find each other.
    pub(super) sites: Sites,
    /// The host of hostseal.
    pub ours: Host,
    /// What its file says.
    pub cluster: Cluster,
    /// On the other host.
    pub peer: Box<dyn Peer>,
    /// What the peer is given.
    pub connection: Connection,
}

impl Course {
    /// A course with nothing out of the ordinary.
    pub const fn plain(implementation: Implementation, role: Role, proposals: &'static str) -> Self {
        Self { implementation, role, auth: Auth::Secret, proposals, way: Way::Plain }
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        if self.way == Way::Ipv6 { Family::V6 } else { Family::V4 }
    }

    /// The PPKs that we and the peer have, where they have some.
    pub(super) fn ppks(self) -> Option<[PpkOfEnd; 2]> {
        let ppk = |id: &str, key: Option<&str>| PpkOfEnd {
            id: id.to_owned(),
            key: key.map(str::to_owned),
            required: matches!(self.way, Way::Ppk | Way::EarlyPpk),
            early: self.way.is_early(),
        };
        let own = ppk(PPK_ID, Some(SECRETS[1]));
        match (self.way, self.role) {
            (way, _) if way.has_ppk() => Some([own.clone(), own]),
            // strongSwan goes by no other name than its own where it answers: there it lacks the key.
            (Way::PpkUnknown | Way::EarlyPpkUnknown, Role::Initiator) => Some([own, ppk(PPK_ID, None)]),
            (Way::PpkUnknown | Way::EarlyPpkUnknown, Role::Responder) => {
                Some([own, ppk(OTHER_PPK_ID, Some(SECRETS[1]))])
            }
            _ => None,
        }
    }

    /// Gives both ends their configuration, on the first two hosts, and starts the peer.
    ///
    /// # Errors
    /// When an end refuses it.
    pub fn prepare(self, lab: &Lab) -> Result<Ends> {
        let family = self.family();
        let behind: &[usize] = if self.way == Way::Nat { &[0] } else { &[] };
        let sites = Sites::of(lab, family, behind)?;
        // Who has the smaller address begins.
        let at = usize::from(self.role == Role::Responder);
        let (ours, foreigner) = (&sites.hosts[at], &sites.hosts[1 - at]);
        if self.way == Way::Narrow {
            sites.hosts.iter().try_for_each(|host| lab.wire().mtu(host, 1280))?;
        }
        let [remote, known_as] = [at, 1 - at].map(|at| sites.outside[at].to_string());
        let (cluster, proof) = self.prove(sites.cluster(), [(ours, &remote), (foreigner, &known_as)])?;
        let insists = self.way == Way::InUdp;
        let cluster = match self.role {
            Role::Initiator if insists => cluster.with("esp", "encapsulation = \"always\""),
            _ => cluster,
        };
        let esp = if self.way == Way::NoEsn { "aes256gcm16" } else { "aes256gcm16-esn" };
        let connection = Connection::between(foreigner, ours, family, SECRETS[0])
            .seen(known_as, remote)
            .proof(proof)
            .proposals(self.proposals)
            .esp_proposals(esp)
            .ppk(self.ppks().map(|[_, theirs]| theirs))
            .encap(insists && self.role == Role::Responder);
        let cluster = match self.ppks() {
            Some([own, _]) => with_ppk(cluster, ours, &own)?,
            None => cluster,
        };
        ours.write(CONFIG, &cluster.text(), 0o644)?;
        let peer = self.implementation.start(foreigner)?;
        peer.load(std::slice::from_ref(&connection))?;
        Ok(Ends { course: self, ours: ours.clone(), sites, cluster, peer, connection })
    }

    /// Gives hostseal what it proves itself with, and says what the peer is to have. Each end comes with its identity.
    fn prove(
        self,
        cluster: Cluster,
        [(ours, our_identity), (foreigner, their_identity)]: [(&Host, &String); 2],
    ) -> Result<(Cluster, Proof)> {
        if self.auth == Auth::Secret {
            cluster.install(ours, SECRETS[0])?;
            return Ok((cluster, Proof::Secret(SECRETS[0].to_owned())));
        }
        let kinds = self.auth.kinds();
        let theirs = key(foreigner, kinds[1])?;
        let private = foreigner.read(KEY)?;
        if self.auth == Auth::Certificates {
            let ca = Ca::new(if self.way == Way::Narrow { 5 } else { 1 })?;
            let cluster = cluster.with("auth", &format!("method = \"certificate\"\ncrl = \"{CRL}\""));
            ca.install(&cluster, ours, kinds[0], std::slice::from_ref(our_identity))?;
            let own = ca.certify(foreigner, std::slice::from_ref(their_identity))?;
            return Ok((cluster, Proof::Certificate { private, own, cas: ca.all() }));
        }
        let line = key(ours, kinds[0])?;
        let [own, other] = [base64(&theirs)?.to_owned(), base64(&line)?.to_owned()];
        let cluster = cluster.with("auth", "method = \"public_key\"");
        let cluster = cluster.with_node(ours, &line).with_node(foreigner, &theirs);
        Ok((cluster, Proof::Keys { private, own, other }))
    }
}

impl Ends {
    /// Enables our end; where the peer begins, after it has asked. Checks that the right end began.
    ///
    /// # Errors
    /// When they do not get together.
    pub fn connect(&self, lab: &Lab) -> Result<()> {
        let capture = lab.capture(&self.ours)?;
        let enable = || hostseal(&self.ours, "enable --timeout 30s")?.expect_code(0);
        match self.course.role {
            Role::Initiator => enable().map(drop)?,
            Role::Responder => std::thread::scope(|scope| -> Result<()> {
                // Whether it was made by this very attempt does not matter to it.
                let _asks = scope.spawn(|| self.peer.order(Order::Initiate, &self.connection.name));
                until("the peer asks", Duration::from_secs(10), || {
                    let asked = capture.so_far()?.packets.iter().any(|packet| exchange(packet).is_some());
                    ensure!(asked, "nothing");
                    Ok::<_, anyhow::Error>(())
                })?;
                enable().map(drop)
            })?,
        }
        let report = capture.stop()?;
        let proven = report.packets.iter().find(|packet| exchange(packet) == Some(IKE_AUTH));
        let direction = proven.context("no IKE_AUTH passed")?.direction;
        let wanted = if self.course.role == Role::Initiator { Direction::Out } else { Direction::In };
        ensure!(direction == wanted, "the other end began: {report}");
        if self.course.way == Way::Narrow {
            ensure_in_fragments(&report)?;
        }
        Ok(())
    }

    /// The host of the peer.
    pub fn foreigner(&self) -> &Host {
        self.peer.host()
    }
}

/// Checks that the messages in which both ends prove themselves came in fragments of IKE, none of which IP had to split.
fn ensure_in_fragments(report: &Report) -> Result<()> {
    // RFC 7383 section 2.5: the Encrypted Fragment payload is the first one; its type stands in the header.
    const ENCRYPTED_FRAGMENT: u8 = 53;
    let is_fragment =
        |packet: &Packet| packet.ike_header().is_some_and(|header| header[16] == ENCRYPTED_FRAGMENT);
    for direction in [Direction::In, Direction::Out] {
        let proofs = report
            .filter(|packet| exchange(packet) == Some(IKE_AUTH) && packet.direction == direction)
            .packets;
        ensure!(proofs.len() > 1 && proofs.iter().all(is_fragment), "{direction:?}: {report}");
    }
    // What IP splits is clear but for its first part. So is ICMP, before we are there.
    report.filter(|packet| packet.protocol == packet::UDP).ensure_nothing_clear()
}
