//! What is wrong with a host, or may surprise its operator, beside what its rows say.

use serde::{Deserialize, Serialize};

use super::NodeName;

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Protection has a gap, or traffic is cut or soon will be: `status` ends with 3.
    Critical,
    /// Something is not as it should be, and protection holds.
    Warning,
    /// Worth knowing.
    Info,
}

/// The kinds of [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemCode {
    /// A setting of this system lets packets past the policies.
    Hole,
    /// IPsec of other software decides about traffic of a pair before ours.
    OtherIpsec,
    /// This host would talk to a peer from an address that the configuration does not list.
    UnlistedSource,
    /// No packet of the agent gets from this host to a peer.
    NoRoute,
    /// Exempt connections of this host can begin at ports that are not exempt.
    ClientPorts,
    /// What must survive a reboot could not be written.
    StateNotSaved,
    /// The kernel refused a change for a pair that is protected all the same.
    KernelRefuses,
    /// Another program has the port of ESP in UDP.
    PortTaken,
    /// Keys end, and new ones could not be agreed.
    KeysNotRenewed,
    /// Large packets do not get through an SA.
    Mtu,
    /// Something on the path forgets ESP while no traffic flows, and drops it then.
    PathForgets,
    /// The agent runs and does not answer.
    AgentHung,
    /// A peer has another secret.
    SecretDiffers,
    /// A peer has another configuration.
    ConfigDiffers,
    /// Keys have no PPK, as none is required.
    PpkOptional,
    /// Keys could be made without the PPK that a key of somebody else wraps.
    KmsOptional,
    /// A member of the cluster runs another generation of hostseal.
    VersionDiffers,
    /// This host forwards packets of others to a peer in the clear.
    ForwardedClear,
    /// What goes between an address of this host and sealed hosts is dropped, as the two are no pair.
    UnpairedAddress,
    /// SAs of an older agent accept packets in the name of other hosts.
    UnboundSa,
    /// A host asks for keys that is no peer of this one.
    UnlistedPeer,
    /// The store that keeps the roster too does not answer.
    StoreAway,
    /// It takes nothing from this host.
    StoreRefuses,
    /// It holds things that do not belong to the cluster.
    StoreStrange,
    /// The key that wraps this host's secret is not to be used any more.
    KeyRevoked,
    /// It cannot be used.
    KeyOffline,
    /// What was done with it could not be recorded.
    AuditNotWritten,
    /// A cluster has not moved to its wrapped secret as a whole.
    WrapUnfinished,
    /// A kind that only a later version knows.
    #[serde(other)]
    Other,
}

impl Severity {
    /// All of them.
    pub const ALL: [Severity; 3] = [Severity::Critical, Severity::Warning, Severity::Info];
}

impl ProblemCode {
    /// All that this version knows.
    pub const ALL: [ProblemCode; 28] = [
        ProblemCode::Hole,
        ProblemCode::OtherIpsec,
        ProblemCode::UnlistedSource,
        ProblemCode::NoRoute,
        ProblemCode::ClientPorts,
        ProblemCode::StateNotSaved,
        ProblemCode::KernelRefuses,
        ProblemCode::PortTaken,
        ProblemCode::KeysNotRenewed,
        ProblemCode::Mtu,
        ProblemCode::PathForgets,
        ProblemCode::AgentHung,
        ProblemCode::SecretDiffers,
        ProblemCode::ConfigDiffers,
        ProblemCode::PpkOptional,
        ProblemCode::KmsOptional,
        ProblemCode::VersionDiffers,
        ProblemCode::ForwardedClear,
        ProblemCode::UnpairedAddress,
        ProblemCode::UnboundSa,
        ProblemCode::UnlistedPeer,
        ProblemCode::StoreAway,
        ProblemCode::StoreRefuses,
        ProblemCode::StoreStrange,
        ProblemCode::KeyRevoked,
        ProblemCode::KeyOffline,
        ProblemCode::AuditNotWritten,
        ProblemCode::WrapUnfinished,
    ];
}

// None is forgotten there.
const _: () = assert!(ProblemCode::Other as usize == ProblemCode::ALL.len());

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// Its kind, for programs.
    pub code: ProblemCode,
    /// The other host that it concerns; `None` where it concerns this one alone.
    pub node: Option<NodeName>,
    /// What is wrong, with which object, and what to do.
    pub message: String,
    /// The part of that which says what to do, where it is a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Problem {
    fn new(severity: Severity, code: ProblemCode, node: Option<NodeName>, message: String) -> Self {
        Self { severity, code, node, message, fix: None }
    }

    /// The same, which says behind what is wrong what to do about it.
    #[must_use]
    pub fn mended_by(self, fix: impl Into<String>) -> Self {
        let fix = fix.into();
        Self { message: format!("{}. {fix}", self.message), fix: Some(fix), ..self }
    }

    /// What is wrong, without what to do where [`Problem::fix`] says that.
    pub fn what(&self) -> &str {
        let what = self.fix.as_deref().and_then(|fix| self.message.strip_suffix(fix));
        what.and_then(|what| what.strip_suffix(". ")).unwrap_or(&self.message)
    }

    /// One that needs somebody now.
    pub fn critical(code: ProblemCode, node: Option<NodeName>, message: impl Into<String>) -> Self {
        Self::new(Severity::Critical, code, node, message.into())
    }

    /// One that can wait.
    pub fn warning(code: ProblemCode, node: Option<NodeName>, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, node, message.into())
    }

    /// One that is worth knowing.
    pub fn info(code: ProblemCode, node: Option<NodeName>, message: impl Into<String>) -> Self {
        Self::new(Severity::Info, code, node, message.into())
    }

    /// Whether it makes a host degraded.
    pub fn is_critical(&self) -> bool {
        self.severity == Severity::Critical
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_is_said_behind_what_is_wrong_and_can_be_told_from_it() {
        let bare = Problem::info(ProblemCode::Hole, None, "a hole");
        assert_eq!((bare.what(), &bare.fix), ("a hole", &None));
        let mended = bare.mended_by("Close it");
        assert_eq!(mended.message, "a hole. Close it");
        assert_eq!((mended.what(), mended.fix.as_deref()), ("a hole", Some("Close it")));
        let told: Problem = serde_json::from_str(&serde_json::to_string(&mended).unwrap()).unwrap();
        assert_eq!(told, mended);
        let before = r#"{"severity":"info","code":"hole","node":null,"message":"a hole. Close it"}"#;
        assert_eq!(serde_json::from_str::<Problem>(before).unwrap().what(), "a hole. Close it");
    }
}
