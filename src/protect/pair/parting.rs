//! Whether this host parts from the peer: it is to have nothing to do with it any more.
//!
//! One that is alive hears of that, too, and goes to the clear as well: it is given the same time as ever, so that nothing
//! is lost. One that leaves unanswered what it is sent is not waited for. Nothing that it may still send is of use, as
//! what it is sent from now on is in the clear.

/// What is known of that.
#[derive(Debug, Default)]
pub(super) struct Parting {
    parts: bool,
    /// The peer leaves unanswered what was sent to it several times.
    silent: bool,
}

impl Parting {
    /// This host parts from the peer from now on.
    pub(super) fn begin(&mut self) {
        *self = Self { parts: true, silent: false };
    }

    /// Whether it does.
    pub(super) fn is_on(&self) -> bool {
        self.parts
    }

    /// The peer leaves unanswered what it is sent, or not any more.
    pub(super) fn note_silent(&mut self, silent: bool) {
        self.silent = silent;
    }

    /// What was noted last.
    pub(super) fn was_silent(&self) -> bool {
        self.silent
    }

    /// Whether nothing is to be waited for.
    pub(super) fn is_from_silent(&self) -> bool {
        self.parts && self.silent
    }

    /// The peer is wanted again, or nothing is left of the pair.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }
}
