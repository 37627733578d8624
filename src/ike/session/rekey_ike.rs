//! CREATE_CHILD_SA for a successor of the IKE SA (RFC 7296 sections 1.3.2, 2.8.2, 2.18 and 2.25.2), and what an
//! additional key exchange after it makes.

use super::established::Established;
use super::exchange::Window;
use super::follow_up::link;
use super::ike_sa::{IkeSa, Stage};
use super::pending::{
    Asked, AskedIke, Crossing, FirstExchange, FollowUp, Half, HalfIke, HeldRequest, Makes, Task,
};
use crate::ike::crypto::Hidden;
use crate::ike::crypto::agreement::KeyPair;
use crate::ike::crypto::keys::{Nonces, Spis, derive};
use crate::ike::crypto::suite::{Groups, choose_ike, concluded_ike, ike_offer};
use crate::ike::limits::IKE_REKEY_FACTOR;
use crate::ike::outbox::Cx;
use crate::ike::reason::{Declined, Incompatible, Misbehaved, Reason, Refusal};
use crate::ike::wire::codes::Exchange;
use crate::ike::wire::{Ke, Parts, Payload};
use crate::types::{AdditionalKe, Group, Method};

/// The peer's SPI of a successor, out of its proposal.
fn peer_spi(bytes: &[u8]) -> Result<u64, Reason> {
    let spi = bytes.try_into().map(u64::from_be_bytes).ok().filter(|spi| *spi != 0);
    spi.ok_or(Misbehaved::NewSpi.into())
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
    /// Asks for a successor of the current IKE SA, with a public value of `wanted`; the peer took the group of
    /// the current one last time.
    pub(super) fn rekey_ike_request(
        &mut self,
        cx: &mut Cx<'_>,
        wanted: Option<Group>,
    ) -> Option<(Exchange, Vec<Payload>, Asked)> {
        let proposals = &cx.settings.ike_proposals;
        let known = self.sas.in_use().and_then(|sa| proposals.group(sa.keys.suite.group?.id()));
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
    ) -> Result<HeldRequest, Reason> {
        self.may_be_succeeded(old)?;
        self.make_room(cx)?;
        let (mut answer, suite, spi) = choose_ike(&cx.settings.ike_proposals, request.sa()?, true)?;
        let theirs = peer_spi(spi)?;
        let ke = request.ke().ok_or(Misbehaved::NoPublicValue)?;
        let group = suite.negotiated_group()?;
        if ke.group != group.id() {
            return Err(Incompatible::Group(group.id()).into());
        }
        let key = KeyPair::generate(group, cx.entropy)?;
        let shared = key.agree(&ke.data)?;
        let nonces = Nonces { initiator: request.nonce()?.to_vec(), responder: cx.nonce() };
        let ours = cx.ike_spi();
        let spis = Spis { initiator: theirs, responder: ours };
        answer.spi = ours.to_be_bytes().to_vec();
        let mut payloads = vec![
            Payload::Sa(vec![answer]),
            Payload::Nonce(nonces.responder.clone()),
            Payload::Ke(Ke { group: group.id(), data: key.public().to_vec() }),
        ];
        self.note_ike_crossing(old, &Crossing { made: ours, lowest: nonces.lowest() });
        let first = FirstExchange { on: old, nonces, shared, link: cx.random::<8>().to_vec() };
        let half = HalfIke { suite, spis };
        match suite.additional {
            None => self.made_by_peer(cx, &first, &half, None)?,
            Some(_) => payloads.push(self.leave_half_made(cx, first, Half::Ike(half))),
        }
        Ok(HeldRequest::new(Exchange::CREATE_CHILD_SA, cx.now, payloads))
    }

    /// A peer that asks for one successor after another does not fill our memory: what it has deleted, and is kept for
    /// its answer alone, goes, and where there is no such it has to wait.
    fn make_room(&mut self, cx: &mut Cx<'_>) -> Result<(), Reason> {
        let has_room = self.sas.make_room();
        cx.out.counters.ike_sas_refused += u64::from(!has_room);
        if has_room { Ok(()) } else { Err(Declined::Crossed.into()) }
    }

    /// RFC 7296 section 2.25.2: not while it is being closed, or a child of it made or closed.
    pub(super) fn may_be_succeeded(&self, old: u64) -> Result<(), Reason> {
        if self.basis().method == Method::Derived {
            return Err(Incompatible::NotRekeyed.into());
        }
        let sa = self.sas.get(old).ok_or(Declined::Crossed)?;
        let usable = sa.stage == Stage::Live && old == self.sas.current() && !self.is_closing();
        let to_go_on = self.agenda.follow_up().is_some_and(FollowUp::makes_child);
        if usable && !to_go_on && !Self::busy_with_child(sa) { Ok(()) } else { Err(Declined::Crossed.into()) }
    }

    /// The IKE SA that `half` becomes.
    pub(super) fn completed(
        &self,
        cx: &mut Cx<'_>,
        first: &FirstExchange,
        half: &HalfIke,
        additional: Option<&Hidden>,
        initiator: bool,
    ) -> Result<IkeSa, Reason> {
        let old = self.sas.get(first.on).ok_or(Declined::Crossed)?;
        let seed = old.keys.rekey_seed(&first.shared, additional);
        let (keys, _) = derive(half.suite, &seed, &first.nonces, half.spis, initiator)?;
        let rekey_at = cx.rekey_time(self.pair(), cx.settings.rekey_after * IKE_REKEY_FACTOR);
        Ok(IkeSa::new(half.spis, initiator, keys, Window::new(0, 0), old.fragments(), rekey_at))
    }

    /// The peer's exchange crosses ours, if we have one.
    fn note_ike_crossing(&mut self, old: u64, theirs: &Crossing<u64>) {
        if let Some(FollowUp { makes: Makes::Ike(_, crossing), .. }) = self.agenda.follow_up_mut() {
            *crossing = Some(theirs.clone());
        }
        match self.sas.get_mut(old).and_then(|sa| sa.window.asking_mut()) {
            Some(Asked::RekeyIke(asked)) => asked.crossing = Some(theirs.clone()),
            Some(Asked::FollowUp(asked)) => {
                if let Makes::Ike(_, crossing) = &mut asked.makes {
                    *crossing = Some(theirs.clone());
                }
            }
            _ => {}
        }
    }

    /// The peer's exchange has made a successor: the one to use, unless ours crosses it.
    pub(super) fn made_by_peer(
        &mut self,
        cx: &mut Cx<'_>,
        first: &FirstExchange,
        half: &HalfIke,
        additional: Option<&Hidden>,
    ) -> Result<(), Reason> {
        let made = self.completed(cx, first, half, additional, false)?;
        let new = made.ours();
        self.sas.add(made);
        if !self.is_rekeying_ike() {
            self.replace(cx, first.on, new);
        }
        Ok(())
    }

    /// Whether an exchange of ours for a successor of the IKE SA is on its way.
    pub(super) fn is_rekeying_ike(&self) -> bool {
        let to_go_on = self.agenda.follow_up().is_some_and(|follow_up| !follow_up.makes_child());
        to_go_on || self.sas.asked().any(Asked::rekeys_ike)
    }

    /// The peer has answered our request on `old`.
    pub(super) fn rekey_ike_answered(
        &mut self,
        cx: &mut Cx<'_>,
        old: u64,
        asked: AskedIke,
        payloads: Result<Vec<Payload>, Reason>,
    ) {
        let wanted = payloads.as_ref().ok().and_then(|payloads| asked.other_group(cx, &Parts(payloads)));
        let half = payloads.and_then(|payloads| conclude(cx, old, &asked, &Parts(&payloads)));
        let done = half.and_then(|(first, half)| match half.suite.additional {
            None => {
                let sa = self.completed(cx, &first, &half, None, true)?;
                self.made_by_us(cx, old, sa, &first.nonces, asked.crossing.clone());
                Ok(())
            }
            Some(additional) => self.follow_up_ike(first, half, additional, asked.crossing.clone()),
        });
        if let Err(error) = done {
            note_failed(cx, &error, wanted);
            self.not_made(cx, old, asked.crossing, wanted);
        }
    }

    /// Goes on with a successor that needs one more exchange, unless the peer's is the one that stays.
    fn follow_up_ike(
        &mut self,
        first: FirstExchange,
        half: HalfIke,
        additional: AdditionalKe,
        crossing: Option<Crossing<u64>>,
    ) -> Result<(), Reason> {
        let crossing = crossing.filter(|theirs| self.is_made_or_half_made(theirs.made));
        if crossing.as_ref().is_some_and(|theirs| first.nonces.lowest() < theirs.lowest) {
            return Err(Declined::Crossed.into());
        }
        self.go_on(first, additional, Makes::Ike(half, crossing))
    }

    /// The additional exchange is over.
    pub(super) fn rekey_ike_concluded(
        &mut self,
        cx: &mut Cx<'_>,
        first: &FirstExchange,
        crossing: Option<Crossing<u64>>,
        made: Result<IkeSa, Reason>,
    ) {
        match made {
            Ok(sa) => self.made_by_us(cx, first.on, sa, &first.nonces, crossing),
            Err(error) => {
                note_failed(cx, &error, None);
                self.not_made(cx, first.on, crossing, None);
            }
        }
    }

    fn is_made_or_half_made(&self, ours: u64) -> bool {
        let half = self.agenda.half();
        matches!(half, Some(Half::Ike(half)) if half.spis.responder == ours) || self.sas.get(ours).is_some()
    }

    /// Our exchange has made `mine`. RFC 7296 section 2.8.2: as with children, the lowest of the four nonces
    /// loses, and whoever asked for the loser deletes it; the winner deletes the old one.
    fn made_by_us(
        &mut self,
        cx: &mut Cx<'_>,
        old: u64,
        mut mine: IkeSa,
        nonces: &Nonces,
        crossing: Option<Crossing<u64>>,
    ) {
        self.agenda.succeeded();
        let new = mine.ours();
        match crossing.filter(|theirs| self.is_made_or_half_made(theirs.made)) {
            Some(theirs) if nonces.lowest() < theirs.lowest => {
                mine.stage = Stage::Doomed;
                self.sas.add(mine);
                self.go_over(cx, old, theirs.made);
            }
            crossed => {
                self.sas.add(mine);
                cx.out.counters.rekeys.ike.done += 1;
                self.sas.go_on_with(new);
                self.sas.mark(old, Stage::Doomed);
                if let Some(theirs) = crossed {
                    self.agenda.take_half_made(|made| matches!(made.half, Half::Ike(_)));
                    self.sas.mark(theirs.made, Stage::Replaced(cx.now + Self::LINGER));
                }
            }
        }
        if self.is_closing() {
            self.sas.doom();
        }
    }

    /// Our exchange has made nothing: the peer's may have, or it asked for another group.
    fn not_made(
        &mut self,
        cx: &mut Cx<'_>,
        old: u64,
        crossing: Option<Crossing<u64>>,
        wanted: Option<Group>,
    ) {
        match (crossing.filter(|theirs| self.is_made_or_half_made(theirs.made)), wanted) {
            (Some(theirs), _) => self.go_over(cx, old, theirs.made),
            (None, Some(group)) => self.add_task(Task::RekeyIke(Some(group))),
            (None, None) => self.put_off(cx, Task::RekeyIke(None)),
        }
    }

    /// Goes on with the peer's successor, now or when it is made.
    fn go_over(&mut self, cx: &mut Cx<'_>, old: u64, new: u64) {
        if self.sas.get(new).is_some() {
            self.replace(cx, old, new);
        }
    }

    /// Goes on with `new`; the peer deletes `old`.
    fn replace(&mut self, cx: &mut Cx<'_>, old: u64, new: u64) {
        cx.out.counters.rekeys.ike.done += 1;
        self.sas.go_on_with(new);
        self.sas.mark(old, Stage::Replaced(cx.now + Self::LINGER));
    }

    /// Whether an IKE SA is in the middle of making, rekeying or deleting a child.
    fn busy_with_child(sa: &IkeSa) -> bool {
        let asks = |asked: &Asked| asked.makes_child() || matches!(asked, Asked::DeleteChild(_));
        sa.window.asking().is_some_and(asks) || sa.window.held().is_some_and(|held| held.child.is_some())
    }
}

/// Nothing came of a request: another attempt does better where that was only not the time, or not the group.
fn note_failed(cx: &mut Cx<'_>, error: &Reason, wanted: Option<Group>) {
    let for_now =
        matches!(error, Reason::Declined(_) | Reason::Refused(Refusal::Temporary | Refusal::NoExchange));
    cx.out.counters.rekeys.ike.failed += u64::from(!for_now && wanted.is_none());
}

/// What the peer's answer makes of our request.
fn conclude(
    cx: &Cx<'_>,
    old: u64,
    asked: &AskedIke,
    answer: &Parts<'_>,
) -> Result<(FirstExchange, HalfIke), Reason> {
    if let Some(refusal) = answer.refusal() {
        return Err(refusal.into());
    }
    let (suite, spi) = concluded_ike(&cx.settings.ike_proposals, answer.sa()?)?;
    let theirs = peer_spi(spi)?;
    let ours = asked.key.group();
    let ke = answer.ke().filter(|ke| ke.group == ours.id() && suite.group == Some(ours));
    let ke = ke.ok_or(Misbehaved::NoneOfChosenGroup)?;
    let shared = asked.key.agree(&ke.data)?;
    let nonces = Nonces { initiator: asked.nonce.clone(), responder: answer.nonce()?.to_vec() };
    let spis = Spis { initiator: asked.ours, responder: theirs };
    let link = link(answer, suite.additional)?;
    Ok((FirstExchange { on: old, nonces, shared, link }, HalfIke { suite, spis }))
}
