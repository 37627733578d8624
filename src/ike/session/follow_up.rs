//! IKE_FOLLOWUP_KE: the additional key exchange after CREATE_CHILD_SA (RFC 9370 section 2.2.4), for successors of
//! an IKE SA and for children. What an exchange makes is for `rekey_ike` and `create_child`.
//!
//! ```text
//! CREATE_CHILD_SA: SA, Ni, KEi, …                            -->
//!                                                            <--   SA, Nr, KEr, …, N(ADDITIONAL_KEY_EXCHANGE)
//! IKE_FOLLOWUP_KE: KEi(1), N(ADDITIONAL_KEY_EXCHANGE)        -->
//!                                                            <--   KEr(1)
//! ```

use super::established::Established;
use super::pending::{Asked, FirstExchange, FollowUp, Half, HalfMade, HeldRequest, Makes, Task};
use crate::ike::crypto::kem::{KemKey, encapsulate, public_value};
use crate::ike::limits::FOLLOW_UP_LIFE;
use crate::ike::outbox::Cx;
use crate::ike::reason::{Declined, Misbehaved, Reason};
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Ke, Parts, Payload};
use crate::types::AdditionalKe;

impl Half {
    /// What it needs.
    fn additional(&self) -> Option<AdditionalKe> {
        match self {
            Half::Ike(half) => half.suite.additional,
            Half::Child(half) => half.choice.key_exchange?.additional,
        }
    }
}

/// The link in the answer to a first exchange: there is one exactly where an additional exchange was chosen.
pub fn link(answer: &Parts<'_>, additional: Option<AdditionalKe>) -> Result<Vec<u8>, Reason> {
    let link = answer.notify(notify::ADDITIONAL_KEY_EXCHANGE).map(|it| it.data.clone());
    if additional.is_some() != link.is_some() {
        return Err(Misbehaved::AdditionalNotChosen.into());
    }
    Ok(link.unwrap_or_default())
}

impl Established {
    /// Leaves it to the peer to go on with `half`. What the answer says of it. There is one at a time: another
    /// takes its place.
    pub(super) fn leave_half_made(&mut self, cx: &Cx<'_>, first: FirstExchange, half: Half) -> Payload {
        let link = Payload::notify(notify::ADDITIONAL_KEY_EXCHANGE, first.link.clone());
        self.agenda.leave_half_made(HalfMade { until: cx.now + FOLLOW_UP_LIFE, first, half });
        link
    }

    /// The peer goes on with what is half made.
    pub(super) fn answer_follow_up(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        request: &Parts<'_>,
    ) -> Result<HeldRequest, Reason> {
        let link = request.notify(notify::ADDITIONAL_KEY_EXCHANGE).map(|it| it.data.as_slice());
        let HalfMade { first, half, .. } = self
            .agenda
            .take_half_made(|made| made.first.on == ours && link == Some(&made.first.link))
            .ok_or(Declined::NoExchange)?;
        match &half {
            Half::Ike(_) => self.may_be_succeeded(ours)?,
            Half::Child(half) => self.may_replace(half.replaces)?,
        }
        let additional = half.additional().ok_or(Declined::NoExchange)?;
        let (public, secret) = encapsulate(additional, public_value(additional, request)?)?;
        let ke = vec![Payload::Ke(Ke { group: additional.id(), data: public })];
        match half {
            Half::Ike(half) => {
                self.made_by_peer(cx, &first, &half, Some(&secret))?;
                Ok(HeldRequest::new(Exchange::IKE_FOLLOWUP_KE, cx.now, ke))
            }
            Half::Child(half) => Ok(self.child_made_by_peer(cx, &first, half, &secret, ke, request)),
        }
    }

    /// Begins an additional exchange.
    pub fn go_on(
        &mut self,
        first: FirstExchange,
        additional: AdditionalKe,
        makes: Makes,
    ) -> Result<(), Reason> {
        self.agenda.go_on(FollowUp { first, key: KemKey::generate(additional)?, makes });
        Ok(())
    }

    /// Asks for the additional exchange.
    pub(super) fn follow_up_request(&mut self, cx: &Cx<'_>) -> Option<(Exchange, Vec<Payload>, Asked)> {
        let asked = self.agenda.take_follow_up()?;
        if asked.first.on != self.sas.current() {
            self.ask_again(Some(Asked::FollowUp(Box::new(asked))));
            return None;
        }
        let mut payloads = vec![
            Payload::Ke(Ke { group: asked.key.additional().id(), data: asked.key.public().to_vec() }),
            Payload::notify(notify::ADDITIONAL_KEY_EXCHANGE, asked.first.link.clone()),
        ];
        if let Makes::Child(half, _) = &asked.makes {
            payloads.extend(half.offer.first(cx).filter(|_| !self.is_foreign()));
        }
        Some((Exchange::IKE_FOLLOWUP_KE, payloads, Asked::FollowUp(Box::new(asked))))
    }

    /// The peer has answered the additional exchange.
    pub(super) fn follow_up_answered(
        &mut self,
        cx: &mut Cx<'_>,
        asked: FollowUp,
        payloads: Result<Vec<Payload>, Reason>,
    ) {
        let FollowUp { first, key, makes } = asked;
        let agreed = payloads.and_then(|payloads| {
            let parts = Parts(&payloads);
            if let Some(refusal) = parts.refusal() {
                return Err(refusal.into());
            }
            Ok((key.agree(public_value(key.additional(), &parts)?)?, payloads))
        });
        match makes {
            Makes::Ike(half, crossing) => {
                let made =
                    agreed.and_then(|(secret, _)| self.completed(cx, &first, &half, Some(&secret), true));
                self.rekey_ike_concluded(cx, &first, crossing, made);
            }
            Makes::Child(half, meanwhile) => self.child_concluded(cx, &first, half, meanwhile, agreed),
        }
    }

    /// The peer does not go on with what it has begun: we do.
    pub(super) fn drop_half_made(&mut self, cx: &mut Cx<'_>) {
        let Some(made) = self.agenda.take_half_made(|made| made.until <= cx.now) else { return };
        match made.half {
            Half::Ike(_) if made.first.on == self.sas.current() => self.put_off(cx, Task::RekeyIke(None)),
            Half::Ike(_) => {}
            Half::Child(half) => {
                half.replaces.into_iter().for_each(|in_spi| self.put_off(cx, Task::RekeyChild(in_spi)));
            }
        }
    }
}
