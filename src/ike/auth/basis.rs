//! What a session rests on: how its keys were made, and what both ends have proven themselves with.

use std::net::IpAddr;

use crate::identity::certificate::CertificateError;
use crate::identity::{AuthMethod, Expected, Identity, PpkRule, PpkTag, PpkUse, Proof, SecretId};
use crate::ike::Settings;
use crate::types::{Method, UnixTime};

/// How the keys of a session were made, and what the proofs of both ends were made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// Ours.
    pub ours: Proof,
    /// The peer's.
    pub theirs: Proof,
    /// How its keys were made.
    pub method: Method,
    /// This end began it, and chose the method.
    pub initiated: bool,
    /// The PPK in its keys, where there is one.
    pub ppk: Option<PpkTag>,
    /// The PPK that this end would have had in them, by what it said then.
    pub wished_ppk: Option<PpkTag>,
}

impl Basis {
    /// Whether both would be made so today, by what `settings` say of us and of the host at `remote`. A method
    /// is the choice of the end that began: the other end is content with whatever it accepts, or two hosts of
    /// which one has changed over would take turns for ever.
    pub fn is_current(&self, settings: &Settings, remote: IpAddr, wall: Option<UnixTime>) -> bool {
        let theirs = match self.theirs {
            Proof::Secret(id) => is_current_secret(id, settings),
            Proof::Key(_) => true,
            // One that is over soon is to be replaced under way.
            Proof::Certified(_) => !self.ends_soon(settings, wall),
        };
        let chosen = self.method == settings.method || !self.initiated;
        chosen
            && self.has_wanted_ppk(settings, remote)
            && is_ours(&self.ours, settings.credentials.identity_for(remote, Some(&self.theirs)), settings)
            && theirs
            && self.is_taken(settings, remote)
    }

    /// What PPK is in its keys.
    pub fn ppk_use(&self) -> PpkUse {
        self.ppk.clone().map_or(PpkUse::None, PpkUse::Used)
    }

    /// Whether its keys have the PPK that is wanted today, or this end has wished for it in vain and is content: a peer
    /// that went on without is not asked for it again and again, and with which one to begin is the choice of the end that
    /// began. One that has begun and got another one asks again, slowly: the peer may learn the wanted one and not be able
    /// to begin.
    fn has_wanted_ppk(&self, settings: &Settings, remote: IpAddr) -> bool {
        let wanted = settings.credentials.ppks.get(&remote).and_then(PpkRule::wanted);
        let is_content = self.ppk.is_none() || !self.initiated;
        self.ppk == wanted || (is_content && self.wished_ppk == wanted)
    }

    /// Whether the PPK in its keys, or that there is none, would be taken today.
    pub fn ppk_is_taken(&self, settings: &Settings, remote: IpAddr) -> bool {
        let Some(rule) = settings.credentials.ppks.get(&remote) else { return true };
        self.ppk.as_ref().map_or(!rule.required, |tag| rule.has(tag))
    }

    /// Whether it is to be replaced, and that may succeed later alone: the peer's proof is over before long, or the peer
    /// has chosen another PPK than the one that this end began with.
    pub fn may_do_better(&self, settings: &Settings, wall: Option<UnixTime>) -> bool {
        let chose_another = self.initiated && self.ppk.is_some() && self.ppk != self.wished_ppk;
        chose_another || self.ends_soon(settings, wall)
    }

    /// Whether the peer's proof ends before its keys would be renewed, at the time of day `wall`.
    fn ends_soon(&self, settings: &Settings, wall: Option<UnixTime>) -> bool {
        let next = wall.map(|wall| wall.after(settings.rekey_after));
        self.theirs.until().zip(next).is_some_and(|(until, next)| until < next)
    }

    /// Looks again at the certificate of the host at `remote`, where other CAs are trusted now or other lists are known.
    ///
    /// # Errors
    /// Why it would not be taken today.
    pub fn review(
        &mut self,
        settings: &Settings,
        remote: IpAddr,
        wall: Option<UnixTime>,
    ) -> Result<(), CertificateError> {
        let (Proof::Certified(certified), Some(wall)) = (&mut self.theirs, wall) else { return Ok(()) };
        let credentials = &settings.credentials;
        let Some(authorities) = credentials.authorities_for(remote) else { return Ok(()) };
        if certified.trust == authorities.id() {
            return Ok(());
        }
        // An address that moves may be that of several hosts: the certificate is one of theirs.
        let mut outcome = Ok(());
        for expected in credentials.expected(remote) {
            outcome = authorities.verify(&certified.chain, wall, expected.subject()).map(drop);
            if outcome.is_ok() {
                certified.trust = authorities.id();
                break;
            }
        }
        outcome
    }

    /// Whether the method and the proof of the host at `remote` would be taken today.
    pub fn is_taken(&self, settings: &Settings, remote: IpAddr) -> bool {
        let mut expected = settings.credentials.expected(remote);
        let proven = settings.accepts(self.method) && self.ppk_is_taken(settings, remote);
        proven && expected.any(|it| is_theirs(&self.theirs, settings, it))
    }

    /// The secret that it rests on; the one that is not `current`, should there be two.
    pub fn secret(&self, current: impl FnOnce() -> Option<SecretId>) -> Option<SecretId> {
        let mut secrets = [&self.ours, &self.theirs].into_iter().filter_map(|proof| match proof {
            Proof::Secret(id) => Some(*id),
            Proof::Key(_) | Proof::Certified(_) => None,
        });
        match (secrets.next()?, secrets.next()) {
            (one, Some(other)) if other != one => Some(if Some(other) == current() { one } else { other }),
            (one, _) => Some(one),
        }
    }
}

fn is_current_secret(id: SecretId, settings: &Settings) -> bool {
    settings.secret.as_ref().is_some_and(|secret| secret.id() == id)
}

fn is_ours(proof: &Proof, identity: &Identity, settings: &Settings) -> bool {
    match (identity, proof) {
        (Identity::Secret, Proof::Secret(id)) => is_current_secret(*id, settings),
        (Identity::PublicKey(key) | Identity::Certificate(key, _), Proof::Key(ours)) => ours == key.public(),
        _ => false,
    }
}

/// A certificate that was taken is looked at again when the CAs or their revocation lists have changed.
fn is_theirs(proof: &Proof, settings: &Settings, expected: &Expected) -> bool {
    let accepts = |method| expected.methods.contains(&method);
    match proof {
        Proof::Secret(id) => {
            accepts(AuthMethod::Secret) && settings.secrets().any(|secret| secret.id() == *id)
        }
        Proof::Key(key) => accepts(AuthMethod::PublicKey) && expected.public_keys.contains(key),
        Proof::Certified(certified) => {
            let authorities = settings.credentials.authorities.as_deref();
            accepts(AuthMethod::Certificate) && authorities.is_some_and(|it| it.id() == certified.trust)
        }
    }
}
