//! A wrapped secret that the cluster offers: each member tries by itself whether it can unwrap it, and says so. Nothing rests
//! on it, and what was unwrapped is gone at once.

use std::time::{Duration, Instant};

use hostseal_kms_protocol::{KmsGift, KmsRefusal};

use super::{ClusterPart, Host};
use crate::config::{Config, OfferedSecret, SecretMark};
use crate::host::lease::{shortened, spread};
use crate::observe::audit::AuditWords;
use crate::observe::kms::in_words;
use crate::observe::member_key::{MemberKey, MemberOffer};
use crate::observe::status::Status;
use crate::store::AuditKind;

/// How long after the first try the next one is, where it was in vain; each pause is twice as long as the one before.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest pause while it is new; later it is `check_every`.
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// For how long it is new.
const NEW: Duration = Duration::from_secs(10 * 60);

/// What came of an offered secret.
pub struct OfferTried {
    /// Which one.
    pub offer: OfferedSecret,
    /// It is the secret that it is said to be; or why it was not unwrapped.
    pub answer: Result<KmsGift<()>, KmsRefusal>,
}

/// What this host knows of the offered secret.
#[derive(Default)]
pub(super) struct OfferTrial(Option<TriedOffer>);

struct TriedOffer {
    mark: SecretMark,
    outcome: Option<Result<(), KmsRefusal>>,
    /// When it is tried again, unless it could be unwrapped.
    again: Instant,
    pause: Duration,
    /// Since when it is new, how often it is tried later, and when nobody tries it any more.
    since: Instant,
    later: Duration,
    until: Instant,
}

impl OfferTrial {
    /// This one is offered now. It is tried after `wait` first.
    fn follow(&mut self, now: Instant, offered: Option<&OfferedSecret>, wait: Duration) {
        if self.is_of(offered) {
            return;
        }
        self.0 = offered.map(|offered| TriedOffer {
            mark: offered.mark(),
            outcome: None,
            again: now + wait,
            pause: PAUSE,
            since: now,
            later: offered.rules.check_every,
            until: now + offered.rules.restore_window,
        });
    }

    fn is_of(&self, offered: Option<&OfferedSecret>) -> bool {
        self.0.as_ref().map(|tried| &tried.mark) == offered.map(OfferedSecret::mark).as_ref()
    }

    fn is_due(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|at| at <= now)
    }

    /// Whether it is to be tried now. Where no answer comes, that is like one that says nothing. `chance` makes the pause
    /// until the next time up to a quarter shorter.
    fn poll(&mut self, now: Instant, chance: u8) -> bool {
        if !self.is_due(now) {
            return false;
        }
        let Some(tried) = &mut self.0 else { return false };
        tried.again = now + shortened(tried.pause, chance);
        let most = if now < tried.since + NEW { PAUSE_MOST.min(tried.later) } else { tried.later };
        tried.pause = (tried.pause * 2).min(most);
        true
    }

    /// Somebody has mended something, perhaps: it is as good as new.
    fn hurry(&mut self, now: Instant) {
        if let Some(tried) = &mut self.0 {
            (tried.again, tried.pause, tried.since, tried.until) =
                (now, PAUSE, now, now + tried.until.duration_since(tried.since));
        }
    }

    /// Says whether something else came of it than the last time.
    fn note(&mut self, mark: &SecretMark, answer: Result<(), KmsRefusal>) -> bool {
        let Some(tried) = self.0.as_mut().filter(|tried| tried.mark == *mark) else { return false };
        let refusal = |answer: &Result<(), KmsRefusal>| answer.as_ref().err().map(|it| it.refusal.clone());
        let differs = tried.outcome.as_ref().map(refusal) != Some(refusal(&answer));
        tried.outcome = Some(answer);
        differs
    }

    /// When it is tried again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let tried = self.0.as_ref().filter(|tried| !tried.is_opened() && tried.again < tried.until)?;
        Some(tried.again)
    }

    fn report(&self) -> Option<MemberOffer> {
        let TriedOffer { mark, outcome, .. } = self.0.as_ref()?;
        let outcome = outcome.clone().map(|outcome| outcome.map_err(|refusal| in_words(&refusal)));
        Some(MemberOffer::new(mark.to_string(), outcome))
    }
}

impl TriedOffer {
    fn is_opened(&self) -> bool {
        matches!(self.outcome, Some(Ok(())))
    }
}

impl Host {
    /// The offered secret, where it is to be tried now; what comes of it is an input: [`Host::handle_offer_tried`].
    pub fn poll_offer(&mut self, now: Instant) -> Option<OfferedSecret> {
        let offered = self.setup.config.offered.as_ref();
        let ClusterPart { offers, optional_since, .. } = self.cluster.as_mut()?;
        let config = &self.setup.config;
        let is_optional = config.secret.wrapped.is_some() && !config.ppk.is_required();
        *optional_since = is_optional.then(|| optional_since.unwrap_or(now));
        if offers.is_of(offered) && !offers.is_due(now) {
            return None;
        }
        let mut chance = [0];
        (self.chance)().fill(&mut chance);
        offers.follow(now, offered, spread(config.nodes.len(), chance[0]));
        offered.filter(|_| offers.poll(now, chance[0])).cloned()
    }

    /// The offered secret is tried at once, as somebody wants that.
    pub(in crate::host) fn hurry_offer(&mut self, now: Instant) {
        self.cluster.iter_mut().for_each(|cluster| cluster.offers.hurry(now));
    }

    /// The offered secret was tried.
    pub fn handle_offer_tried(&mut self, OfferTried { offer, answer }: OfferTried) {
        let (event, words) = match &answer {
            Ok(gift) => (AuditKind::Use, AuditWords::of_gift(gift)),
            Err(refusal) => (AuditKind::Refusal, AuditWords::of_refusal(refusal)),
        };
        self.record_of(&offer.rules, event, words);
        let Some(ClusterPart { offers, .. }) = &mut self.cluster else { return };
        let refused = answer.as_ref().err().map(in_words);
        match (offers.note(&offer.mark(), answer.map(drop)), refused) {
            (true, None) => tracing::info!("this host can unwrap the secret that the cluster offers"),
            (true, Some(why)) => {
                tracing::warn!("this host cannot unwrap the secret that the cluster offers: {why}");
            }
            (false, _) => {}
        }
    }
}

impl ClusterPart {
    /// How this host stands with the wrapped secret of its cluster.
    pub(super) fn member_key(
        &self,
        status: &Status,
        config: &Config,
        opened: Option<&SecretMark>,
    ) -> MemberKey {
        let mark = config.wrapped_mark();
        let opened = opened.is_some() && opened == mark.as_ref();
        MemberKey::of(status, mark.map(|mark| mark.to_string()), opened, self.offers.report())
    }
}

#[cfg(test)]
mod tests {
    use hostseal_kms_protocol::Refusal;

    use super::*;
    use crate::config::{HelperPlace, WrappedSecret};
    use crate::identity::Secret;

    fn offered(key: &str) -> OfferedSecret {
        let wrapped = WrappedSecret {
            key: key.to_owned(),
            digest: Secret::new([1; 32]).digest(),
            blob: "AAAA".to_owned(),
        };
        OfferedSecret { rules: HelperPlace::default().rules("exec", key).unwrap(), wrapped }
    }

    /// A KMS is asked no more often than needed: once where it gives the secret, and less and less often where it does not.
    #[test]
    fn an_offer_is_tried_until_it_opens_and_then_no_more() {
        let (start, mut trial) = (Instant::now(), OfferTrial::default());
        let (first, other) = (offered("k"), offered("k2"));
        assert!(!trial.poll(start, 0) && trial.report().is_none());
        trial.follow(start, Some(&first), Duration::ZERO);
        let (mut tried, mut told) = (Vec::new(), 0);
        for second in 0..2000 {
            let now = start + Duration::from_secs(second);
            trial.follow(now, Some(&first), spread(65, 255));
            if trial.poll(now, 0) {
                tried.push(second);
                let why = KmsRefusal::because(Refusal::Denied, "no");
                told += u32::from(trial.note(&first.mark(), Err(why)));
            }
        }
        assert_eq!(tried[..10], [0, 5, 15, 35, 75, 135, 195, 255, 315, 375]);
        let last: Vec<u64> = tried.windows(2).rev().take(3).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(last, [300; 3], "later as often as the key in force is used");
        assert_eq!(told, 1, "the log has a line when something else comes of it");
        assert!(trial.report().unwrap().why.unwrap().contains("no"));
        let now = start + Duration::from_secs(2500);
        assert!(trial.poll(now, 0));
        assert!(!trial.note(&other.mark(), Ok(())));
        assert!(!trial.report().unwrap().opened, "that was another one");
        assert!(trial.note(&first.mark(), Ok(())));
        assert!(trial.report().unwrap().opened && trial.deadline().is_none());
        assert!(!trial.poll(now + 2 * PAUSE_MOST, 0));
        trial.follow(now, Some(&other), Duration::ZERO);
        assert!(trial.poll(now, 0) && !trial.report().unwrap().opened, "it says nothing of the next one");
        trial.follow(now, None, Duration::ZERO);
        assert!(trial.report().is_none());
    }

    /// Hosts that hear of it at once do not ask at once, nor all together later; and one that nobody withdraws has an end.
    #[test]
    fn the_asks_for_an_offer_are_spread_and_have_an_end() {
        let (start, offer) = (Instant::now(), offered("k"));
        let mut trials = [0, 128, 255].map(|chance: u8| {
            let mut trial = OfferTrial::default();
            trial.follow(start, Some(&offer), spread(65, chance));
            (trial, chance)
        });
        let first: Vec<Instant> = trials.iter().filter_map(|(trial, _)| trial.deadline()).collect();
        assert!(
            first[0] == start && first[1] == start + Duration::from_secs(10) && first[2] > first[1],
            "{first:?}"
        );
        let now = start + Duration::from_secs(20);
        assert!(trials.iter_mut().all(|(trial, chance)| trial.poll(now, *chance)));
        let pauses: Vec<Duration> =
            trials.iter().filter_map(|(trial, _)| Some(trial.deadline()? - now)).collect();
        assert!(pauses[0] == PAUSE && pauses[1] < PAUSE && pauses[2] < pauses[1] && pauses[2] > PAUSE / 2);
        let (trial, _) = &mut trials[0];
        assert!(trial.poll(start + offer.rules.restore_window, 0));
        assert_eq!(trial.deadline(), None);
        // Unless somebody wants it.
        let later = start + offer.rules.restore_window * 2;
        trial.hurry(later);
        assert!(trial.poll(later, 0) && trial.deadline() == Some(later + PAUSE));
    }
}
