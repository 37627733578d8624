//! CREATE_CHILD_SA for a successor of the IKE SA (RFC 7296 sections 1.3.2, 2.8.2, 2.18 and 2.25.2).

use super::agreement::KeyPair;
use super::error::Error;
use super::established::Established;
use super::exchange::Window;
use super::ike_sa::{IkeSa, Stage};
use super::keys::{Nonces, Spis, derive};
use super::limits::IKE_REKEY_FACTOR;
use super::outbox::Cx;
use super::pending::{Asked, AskedIke, Crossing, Held, Task};
use super::suite::{choose_ike, concluded_ike, ike_offer};
use super::wire::codes::Exchange;
use super::wire::{Ke, Parts, Payload};
use crate::model::Group;

/// The peer's SPI of a successor, out of its proposal.
fn peer_spi(bytes: &[u8]) -> Result<u64, Error> {
    let spi = bytes.try_into().map(u64::from_be_bytes).ok().filter(|spi| *spi != 0);
    spi.ok_or(Error::PeerMisbehaved("its SPI of the new IKE SA is not valid"))
}

impl AskedIke {
    /// The group that the peer wants instead: obeyed once, if it is one that we offer (RFC 7296
    /// section 1.3).
    fn other_group(&self, cx: &Cx<'_>, answer: &Parts<'_>) -> Option<Group> {
        let group = cx.settings.ike_proposals.group(answer.wanted_group()?)?;
        (self.wanted.is_none() && group != self.key.group()).then_some(group)
    }
}

impl Established {
    /// Asks for a successor of the current IKE SA, with a public value of `group`; the peer took that of the
    /// current one last time.
    pub(super) fn rekey_ike_request(
        &mut self,
        cx: &mut Cx<'_>,
        wanted: Option<Group>,
    ) -> Option<(Exchange, Vec<Payload>, Asked)> {
        let proposals = &cx.settings.ike_proposals;
        let known = self.sa(self.current).and_then(|sa| proposals.group(sa.keys.suite.group.id()));
        let group = wanted.or(known).or(proposals.first_group());
        let Some(key) = group.and_then(|group| KeyPair::generate(group, cx.entropy).ok()) else {
            self.put_off(cx, Task::RekeyIke(None));
            return None;
        };
        let (ours, nonce) = (cx.ike_spi(), cx.nonce());
        let payloads = vec![
            Payload::Sa(ike_offer(&cx.settings.ike_proposals, &ours.to_be_bytes())),
            Payload::Nonce(nonce.clone()),
            Payload::Ke(Ke { group: key.group().id(), data: key.public().to_vec() }),
        ];
        let asked = AskedIke { ours, key, nonce, wanted, crossing: None };
        Some((Exchange::CREATE_CHILD_SA, payloads, Asked::RekeyIke(asked)))
    }

    /// The peer asks for a successor of the IKE SA `old`.
    pub(super) fn answer_rekey_ike(
        &mut self,
        cx: &mut Cx<'_>,
        old: u64,
        request: &Parts<'_>,
    ) -> Result<Held, Error> {
        let sa = self.sa(old).ok_or(Error::Busy)?;
        // RFC 7296 section 2.25.2: not while it is being closed, or a child of it made or closed.
        let usable = sa.stage == Stage::Live && old == self.current && !self.is_closing();
        if !usable || Self::busy_with_child(sa) {
            return Err(Error::Busy);
        }
        let (mut answer, suite, spi) = choose_ike(&cx.settings.ike_proposals, request.sa()?)?;
        let theirs = peer_spi(spi)?;
        let ke = request.ke().ok_or(Error::PeerMisbehaved("there is no public value"))?;
        if ke.group != suite.group.id() {
            return Err(Error::OtherGroup(suite.group.id()));
        }
        let key = KeyPair::generate(suite.group, cx.entropy)?;
        let shared = key.agree(&ke.data)?;
        let nonces = Nonces { initiator: request.nonce()?.to_vec(), responder: cx.nonce() };
        let ours = cx.ike_spi();
        let spis = Spis { initiator: theirs, responder: ours };
        let (keys, _) = derive(suite, &sa.keys.rekey_seed(&shared), &nonces, spis, false)?;
        let rekey_at = cx.rekey_time(self.pair(), cx.settings.rekey_after * IKE_REKEY_FACTOR);
        self.sas.push(IkeSa::new(spis, false, keys, Window::new(0, 0), sa.fragments(), rekey_at));
        self.succeed_by_peer(cx, old, ours, &nonces);
        answer.spi = ours.to_be_bytes().to_vec();
        let payloads = vec![
            Payload::Sa(vec![answer]),
            Payload::Nonce(nonces.responder),
            Payload::Ke(Ke { group: suite.group.id(), data: key.public().to_vec() }),
        ];
        Ok(Held::new(Exchange::CREATE_CHILD_SA, cx.now, payloads))
    }

    /// The peer's exchange has made `new` out of `old`: the one to use, unless ours crosses it.
    fn succeed_by_peer(&mut self, cx: &Cx<'_>, old: u64, new: u64, nonces: &Nonces) {
        let Some(sa) = self.sa_mut(old) else { return };
        if let Some(Asked::RekeyIke(asked)) = sa.window.asking_mut() {
            asked.crossing = Some(Crossing { made: new, lowest: nonces.lowest() });
        } else {
            sa.stage = Stage::Replaced(cx.now + Self::LINGER);
            self.current = new;
        }
    }

    /// The peer has answered our request on `old`.
    pub(super) fn rekey_ike_answered(
        &mut self,
        cx: &mut Cx<'_>,
        old: u64,
        asked: AskedIke,
        payloads: Result<Vec<Payload>, Error>,
    ) {
        let wanted = payloads.as_ref().ok().and_then(|payloads| asked.other_group(cx, &Parts(payloads)));
        let concluded =
            payloads.and_then(|payloads| self.conclude_rekey_ike(cx, old, &asked, &Parts(&payloads)));
        let theirs = asked.crossing;
        match concluded {
            Ok((mut mine, nonces)) => {
                self.succeeded();
                let new = mine.ours();
                // RFC 7296 section 2.8.2: as with children, the lowest of the four nonces loses, and
                // whoever asked for the loser deletes it; the winner deletes the old one.
                match theirs.filter(|theirs| self.sa(theirs.made).is_some()) {
                    Some(theirs) if nonces.lowest() < theirs.lowest => {
                        mine.stage = Stage::Doomed;
                        self.sas.push(mine);
                        self.replace(cx, old, theirs.made);
                    }
                    crossed => {
                        self.sas.push(mine);
                        self.current = new;
                        self.set_stage(old, Stage::Doomed);
                        if let Some(theirs) = crossed {
                            self.set_stage(theirs.made, Stage::Replaced(cx.now + Self::LINGER));
                        }
                    }
                }
            }
            Err(_) => match (theirs, wanted) {
                (Some(theirs), _) => self.replace(cx, old, theirs.made),
                (None, Some(group)) => self.add_task(Task::RekeyIke(Some(group))),
                (None, None) => self.put_off(cx, Task::RekeyIke(None)),
            },
        }
    }

    fn conclude_rekey_ike(
        &self,
        cx: &mut Cx<'_>,
        old: u64,
        asked: &AskedIke,
        answer: &Parts<'_>,
    ) -> Result<(IkeSa, Nonces), Error> {
        if let Some(refusal) = answer.refusal() {
            return Err(Error::Refused(refusal));
        }
        let sa = self.sa(old).ok_or(Error::Busy)?;
        let (suite, spi) = concluded_ike(&cx.settings.ike_proposals, answer.sa()?)?;
        let theirs = peer_spi(spi)?;
        let ke = answer.ke().filter(|ke| ke.group == asked.key.group().id());
        let ke = ke.ok_or(Error::PeerMisbehaved("there is no public value of the group chosen"))?;
        let shared = asked.key.agree(&ke.data)?;
        let nonces = Nonces { initiator: asked.nonce.clone(), responder: answer.nonce()?.to_vec() };
        let spis = Spis { initiator: asked.ours, responder: theirs };
        let (keys, _) = derive(suite, &sa.keys.rekey_seed(&shared), &nonces, spis, true)?;
        let rekey_at = cx.rekey_time(self.pair(), cx.settings.rekey_after * IKE_REKEY_FACTOR);
        Ok((IkeSa::new(spis, true, keys, Window::new(0, 0), sa.fragments(), rekey_at), nonces))
    }

    /// Goes on with `new`; the peer deletes `old`.
    fn replace(&mut self, cx: &Cx<'_>, old: u64, new: u64) {
        self.current = new;
        self.set_stage(old, Stage::Replaced(cx.now + Self::LINGER));
    }

    fn set_stage(&mut self, ours: u64, stage: Stage) {
        if let Some(sa) = self.sa_mut(ours).filter(|sa| !matches!(sa.stage, Stage::Ended(_))) {
            sa.stage = stage;
        }
    }

    /// Whether an IKE SA is in the middle of making, rekeying or deleting a child.
    fn busy_with_child(sa: &IkeSa) -> bool {
        matches!(sa.window.asking(), Some(Asked::Child(_) | Asked::DeleteChild(_)))
            || sa.window.held().is_some_and(|held| held.child.is_some())
    }
}
