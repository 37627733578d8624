//! One check, and all of them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::{NodeName, Problem, ProblemCode, Severity};

/// The version of the JSON.
const SCHEMA: u32 = 1;

/// The kinds of checks, with what programs call them. `docs/doctor.md` says what each means.
macro_rules! check_ids {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kinds of checks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum CheckId {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
            /// A kind that only a later version knows.
            #[serde(other, rename = "other")]
            Other,
        }

        impl CheckId {
            /// All that this version knows.
            pub const ALL: &[CheckId] = &[$(CheckId::$name,)* CheckId::Other];

            /// What programs call it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(CheckId::$name => $text,)*
                    CheckId::Other => "other",
                }
            }
        }
    };
}

check_ids! {
    /// The file can be read, says nothing wrong, and is in force.
    Config = "config",
    /// Which node of the file this host is.
    Node = "node",
    /// The secret or the key of this host can be had.
    Credentials = "credentials",
    /// The certificate of this host is good now.
    Certificate = "certificate",
    /// The command may look at all that it has to.
    Permission = "permission",
    /// The agent runs and answers.
    Agent = "agent",
    /// The kernel is one that gets fixes.
    Kernel = "kernel",
    /// The kernel has ESP and the cipher.
    KernelEsp = "kernel_esp",
    /// This host has its addresses.
    Addresses = "addresses",
    /// Nobody else has the ports that the agent needs.
    Ports = "ports",
    /// There is room for what must survive.
    Disk = "disk",
    /// What must survive was written.
    StateNotSaved = "state_not_saved",
    /// No setting of this system lets packets past the policies.
    Hole = "hole",
    /// No other IPsec decides about traffic of a pair.
    OtherIpsec = "other_ipsec",
    /// This host talks to its peers from addresses that the file lists.
    UnlistedSource = "unlisted_source",
    /// A route leads to each peer.
    NoRoute = "no_route",
    /// Exempt connections of this host begin at exempt ports.
    ClientPorts = "client_ports",
    /// What this host forwards does not pass in the clear.
    ForwardedClear = "forwarded_clear",
    /// Each address of this host has a pair.
    UnpairedAddress = "unpaired_address",
    /// No host asks for keys that is none of the file's.
    UnlistedPeer = "unlisted_peer",
    /// The table of connections of this host has room.
    Conntrack = "conntrack",
    /// The store that keeps the roster too.
    Store = "store",
    /// The key that wraps the secret can be used.
    KmsKey = "kms_key",
    /// Who asks its KMS can be run.
    KmsHelper = "kms_helper",
    /// What is done with it is recorded.
    KmsAudit = "kms_audit",
    /// How a pair stands.
    Pair = "pair",
    /// IKE over UDP gets through.
    UdpIke = "udp_ike",
    /// ESP by itself gets through: IP protocol 50.
    Esp = "esp",
    /// The port of ESP in UDP gets through.
    UdpNat = "udp_nat",
    /// How long an answer takes.
    RoundTrip = "round_trip",
    /// Large packets get through.
    PathMtu = "mtu",
    /// Nothing on the path forgets a pair that is idle.
    PathForgets = "path_forgets",
    /// Keys are renewed in time.
    KeysNotRenewed = "keys_not_renewed",
    /// The kernel takes each change.
    KernelRefuses = "kernel_refuses",
    /// SAs accept packets in the name of their peer alone.
    UnboundSa = "unbound_sa",
    /// The configuration is the same on both ends.
    ConfigDiffers = "config_differs",
    /// The secret is the same on both ends.
    SecretDiffers = "secret_differs",
    /// The keys have a PPK where there are PPKs.
    Ppk = "ppk",
    /// Both ends run the same version.
    Version = "version",
    /// Both ends have the same time.
    Clock = "clock",
    /// The node of a cluster answers.
    Answers = "answers",
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<ProblemCode> for CheckId {
    fn from(code: ProblemCode) -> Self {
        match code {
            ProblemCode::Hole => Self::Hole,
            ProblemCode::OtherIpsec => Self::OtherIpsec,
            ProblemCode::UnlistedSource => Self::UnlistedSource,
            ProblemCode::NoRoute => Self::NoRoute,
            ProblemCode::ClientPorts => Self::ClientPorts,
            ProblemCode::StateNotSaved => Self::StateNotSaved,
            ProblemCode::KernelRefuses => Self::KernelRefuses,
            ProblemCode::PortTaken => Self::Ports,
            ProblemCode::KeysNotRenewed => Self::KeysNotRenewed,
            ProblemCode::Mtu => Self::PathMtu,
            ProblemCode::PathForgets => Self::PathForgets,
            ProblemCode::AgentHung => Self::Agent,
            ProblemCode::SecretDiffers => Self::SecretDiffers,
            ProblemCode::ConfigDiffers => Self::ConfigDiffers,
            ProblemCode::PpkOptional | ProblemCode::KmsOptional => Self::Ppk,
            ProblemCode::VersionDiffers => Self::Version,
            ProblemCode::ForwardedClear => Self::ForwardedClear,
            ProblemCode::UnpairedAddress => Self::UnpairedAddress,
            ProblemCode::UnboundSa => Self::UnboundSa,
            ProblemCode::UnlistedPeer => Self::UnlistedPeer,
            ProblemCode::KeyRevoked | ProblemCode::KeyOffline | ProblemCode::WrapUnfinished => Self::KmsKey,
            ProblemCode::AuditNotWritten => Self::KmsAudit,
            ProblemCode::StoreAway | ProblemCode::StoreRefuses | ProblemCode::StoreStrange => Self::Store,
            ProblemCode::Other => Self::Other,
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CheckResult {
    /// It is as it should be.
    #[serde(rename = "ok")]
    Ok,
    /// It is not, and protection holds.
    #[serde(rename = "warn")]
    Warn,
    /// Protection has a gap or traffic is cut, or soon will be.
    #[serde(rename = "FAIL")]
    Fail,
    /// It could not be found out.
    #[serde(rename = "unknown")]
    Unknown,
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CheckResult::Ok => "ok",
            CheckResult::Warn => "warn",
            CheckResult::Fail => "FAIL",
            CheckResult::Unknown => "unknown",
        })
    }
}

impl From<Severity> for CheckResult {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Critical => Self::Fail,
            Severity::Warning => Self::Warn,
            Severity::Info => Self::Ok,
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its kind.
    pub id: CheckId,
    /// The other host that it is about; `None` where it is about this one.
    pub node: Option<NodeName>,
    /// What came of it.
    pub result: CheckResult,
    /// What was seen.
    pub detail: String,
    /// What to do; `None` where there is nothing to do, or where `detail` says it.
    pub fix: Option<String>,
}

impl Check {
    fn new(id: CheckId, result: CheckResult, detail: impl Into<String>) -> Self {
        Self { id, node: None, result, detail: detail.into(), fix: None }
    }

    /// It is as it should be.
    pub fn ok(id: CheckId, detail: impl Into<String>) -> Self {
        Self::new(id, CheckResult::Ok, detail)
    }

    /// It is not, and protection holds.
    pub fn warn(id: CheckId, detail: impl Into<String>) -> Self {
        Self::new(id, CheckResult::Warn, detail)
    }

    /// Protection has a gap or traffic is cut.
    pub fn fail(id: CheckId, detail: impl Into<String>) -> Self {
        Self::new(id, CheckResult::Fail, detail)
    }

    /// It could not be found out.
    pub fn unknown(id: CheckId, detail: impl Into<String>) -> Self {
        Self::new(id, CheckResult::Unknown, detail)
    }

    /// The same about another host.
    #[must_use]
    pub fn about(self, node: &NodeName) -> Self {
        Self { node: Some(node.clone()), ..self }
    }

    /// The same with what to do.
    #[must_use]
    pub fn mended_by(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

impl From<&Problem> for Check {
    fn from(problem: &Problem) -> Self {
        Self {
            id: problem.code.into(),
            node: problem.node.clone(),
            result: problem.severity.into(),
            detail: problem.what().to_owned(),
            fix: problem.fix.clone(),
        }
    }
}

/// All checks of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The version of this JSON.
    schema: u32,
    /// The checks, those of this host first.
    checks: Vec<Check>,
}

impl Diagnosis {
    /// These, in this order.
    pub fn new(checks: Vec<Check>) -> Self {
        Self { schema: SCHEMA, checks }
    }

    /// The checks.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// How many came out so.
    pub fn count(&self, result: CheckResult) -> usize {
        self.checks.iter().filter(|check| check.result == result).count()
    }

    /// Whether nothing could be found out of protection: nothing at all, or the command may not look.
    pub fn is_blind(&self) -> bool {
        // Other nodes say what they like.
        let own = |check: &Check| check.node.is_none() && check.id == CheckId::Permission;
        let forbidden = |check: &Check| own(check) && check.result != CheckResult::Ok;
        self.checks.iter().any(forbidden) || self.checks.iter().all(|it| it.result == CheckResult::Unknown)
    }
}
