//! A secret as a key of a KMS has wrapped it, and what the settings of a cluster say of one: `[secret.wrapped]` is in force,
//! and `[secret.next]` is offered, for all members to try before anybody relies on it.

use std::fmt;

use sha2::{Digest as _, Sha256};
use toml::de::DeValue;
use toml::{Table, Value};

use super::kms::{key, provider};
use super::ppk::time_of;
use super::values::{Placed, Section, text};
use super::{Config, KmsRules};
use crate::identity::SecretDigest;
use crate::types::UnixTime;

/// More than any KMS makes of a secret. An entry of a roster holds two of them with their keys, the one in force and the one
/// that is offered, beside the other settings.
const BLOB_MAX: usize = 1024;
const SHARED_KEY_MAX: usize = 512;

/// How the name of a PPK begins that comes from a wrapped secret.
const PPK: &str = "kms-";

/// A secret that a key has wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedSecret {
    /// The key that has wrapped it, as its KMS calls it.
    pub key: String,
    /// What it is when it is unwrapped, and nothing else: whoever answers in the place of the KMS chooses nobody's secret.
    pub digest: SecretDigest,
    /// It, in base64.
    pub blob: String,
}

impl WrappedSecret {
    /// For people; the blob is of use to programs alone.
    pub(super) fn in_words(&self) -> String {
        format!(
            "the secret {} by the key {} (blob {})",
            self.digest.id(),
            self.key,
            short(Sha256::new_with_prefix(&self.blob))
        )
    }
}

/// The same with who keeps the key, as a roster holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedSecret {
    /// Who keeps the key.
    pub provider: String,
    /// What the key has wrapped.
    pub wrapped: WrappedSecret,
}

/// A wrapped secret that the cluster offers, and whom this host has to ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedSecret {
    /// Whom it asks.
    pub rules: KmsRules,
    /// What is to be unwrapped.
    pub wrapped: WrappedSecret,
}

/// What tells one wrapped secret from another: the same secret under another key is another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretMark(String);

impl fmt::Display for SecretMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SecretMark {
    fn of(provider: &str, WrappedSecret { key, digest, blob }: &WrappedSecret) -> Self {
        let mut hash = Sha256::new();
        for part in [provider, key, &digest.to_string(), blob] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(short(hash))
    }
}

fn short(hash: Sha256) -> String {
    hash.finalize().iter().take(8).map(|octet| format!("{octet:02x}")).collect()
}

impl SharedSecret {
    /// What tells it from others.
    pub fn mark(&self) -> SecretMark {
        SecretMark::of(&self.provider, &self.wrapped)
    }

    fn of(value: Option<&Value>) -> Option<Self> {
        let text = |key: &str| Some(value?.get(key)?.as_str()?.to_owned());
        let wrapped = WrappedSecret {
            key: text("key")?,
            digest: text("secret_id")?.parse().ok()?,
            blob: text("blob")?,
        };
        Some(Self { provider: text("provider")?, wrapped })
    }

    fn to_value(&self) -> Value {
        let Self { provider, wrapped: WrappedSecret { key, digest, blob } } = self;
        let digest = digest.to_string();
        let said = [("provider", provider), ("key", key), ("secret_id", &digest), ("blob", blob)];
        Value::Table(
            said.into_iter().map(|(key, value)| (key.to_owned(), Value::String(value.clone()))).collect(),
        )
    }
}

impl Config {
    /// What tells the wrapped secret that a host goes by, where its cluster has given it.
    pub fn wrapped_mark(&self) -> Option<SecretMark> {
        let (kms, wrapped) = self.kms.as_ref().zip(self.secret.wrapped.as_ref())?;
        Some(SecretMark::of(&kms.provider, wrapped))
    }

    /// The key that this host asks a KMS for: the one in force, or else the one that its cluster offers.
    pub fn key_to_ask(&self) -> Option<&KmsRules> {
        self.kms.as_ref().or(self.offered.as_ref().map(|offered| &offered.rules))
    }
}

impl OfferedSecret {
    /// What tells it from others.
    pub fn mark(&self) -> SecretMark {
        SecretMark::of(&self.rules.provider, &self.wrapped)
    }
}

/// What the settings of a cluster say of its wrapped secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterKey {
    /// Who is to wrap it.
    pub provider: Option<String>,
    /// With which key.
    pub key: Option<String>,
    /// What all members unwrap.
    pub in_force: Option<SharedSecret>,
    /// What they try.
    pub next: Option<SharedSecret>,
    /// What hosts call the PPK that comes from it.
    pub ppk_id: Option<String>,
    /// Members make no keys without it.
    pub required: bool,
    /// From when on they make none, where they do now.
    pub until: Option<UnixTime>,
}

impl ClusterKey {
    /// That of these settings. What they do not say well they do not say.
    pub fn of(settings: &str) -> Self {
        let table: Table = settings.parse().unwrap_or_default();
        let of = |section: &str, key: &str| table.get(section)?.get(key);
        let text = |section: &str, key: &str| of(section, key)?.as_str().map(str::to_owned);
        Self {
            provider: text("kms", "provider"),
            key: text("kms", "key"),
            in_force: SharedSecret::of(of("secret", "wrapped")),
            next: SharedSecret::of(of("secret", "next")),
            ppk_id: text("ppk", "id"),
            required: of("ppk", "required").and_then(Value::as_bool).unwrap_or(true),
            until: of("ppk", "optional_until").and_then(|until| match until {
                Value::String(text) => time_of(text),
                Value::Datetime(time) => time_of(&time.to_string()),
                _ => None,
            }),
        }
    }

    /// The same by this time.
    #[must_use]
    pub fn at(self, now: UnixTime) -> Self {
        let required = self.required || self.until.is_some_and(|until| until <= now);
        Self { required, until: self.until.filter(|_| !required), ..self }
    }
}

/// Settings in which the members are offered this one. Their key and its provider are what they are wrapped with from now on.
pub fn with_offer(settings: &str, offer: &SharedSecret) -> String {
    changed(settings, |table| {
        set(table, "kms", "provider", offer.provider.clone());
        set(table, "kms", "key", offer.wrapped.key.clone());
        set(table, "secret", "next", offer.to_value());
    })
}

/// Settings in which what was offered is in force. Where nothing was before, it is a PPK that is used, and required from
/// `end` on at the latest.
pub fn with_offer_in_force(settings: &str, end: UnixTime) -> String {
    let ClusterKey { in_force, next, ppk_id, .. } = ClusterKey::of(settings);
    let Some(next) = next else { return settings.to_owned() };
    changed(settings, |table| {
        set(table, "secret", "wrapped", next.to_value());
        unset(table, "secret", "next");
        if in_force.is_none() {
            // Named after the secret, so that hosts with different ones see that; unless somebody has chosen a name.
            if ppk_id.is_none_or(|id| id.starts_with(PPK)) {
                set(table, "ppk", "id", format!("{PPK}{}", next.wrapped.digest.id()));
            }
            set(table, "ppk", "required", false);
            set(table, "ppk", "optional_until", end.to_string());
        }
    })
}

/// Settings in which the PPK is required. The end of the time without it stays: a member's own file may have an exception
/// that needs one.
pub fn with_required_ppk(settings: &str) -> String {
    changed(settings, |table| unset(table, "ppk", "required"))
}

fn changed(settings: &str, change: impl FnOnce(&mut Table)) -> String {
    let mut table: Table = settings.parse().unwrap_or_default();
    change(&mut table);
    table.to_string()
}

fn set(table: &mut Table, section: &str, key: &str, value: impl Into<Value>) {
    let section = table.entry(section).or_insert_with(|| Table::new().into());
    if let Value::Table(section) = section {
        section.insert(key.to_owned(), value.into());
    }
}

fn unset(table: &mut Table, section: &str, key: &str) {
    if let Some(Value::Table(section)) = table.get_mut(section) {
        section.remove(key);
    }
}

/// What a section says of a wrapped secret; `None` where it is absent or wrong.
pub(super) fn read(section: Section<'_>) -> Option<Placed<WrappedSecret>> {
    read_with(section, |_| ()).map(|(wrapped, ())| wrapped)
}

/// The same with who keeps the key.
pub(super) fn read_shared(section: Section<'_>) -> Option<Placed<SharedSecret>> {
    let (Placed { value: wrapped, key, span }, provider) =
        read_with(section, |section| section.required("provider", provider).value)?;
    Some(Placed { value: SharedSecret { provider, wrapped }, key, span })
}

fn read_with<T>(
    mut section: Section<'_>,
    more: impl FnOnce(&mut Section<'_>) -> T,
) -> Option<(Placed<WrappedSecret>, T)> {
    if section.is_absent() {
        return None;
    }
    let key = section.required("key", shared_key).value;
    section.require("secret_id", "is missing");
    let digest = section.optional("secret_id", digest);
    let blob = section.required("blob", blob).value;
    let more = more(&mut section);
    let place = section.place();
    section.finish();
    Some((place.with(WrappedSecret { key, digest: digest?.value, blob }), more))
}

fn shared_key(value: &DeValue<'_>) -> Result<String, String> {
    let is_good = |key: &String| key.len() <= SHARED_KEY_MAX;
    let words = || format!("must have {SHARED_KEY_MAX} characters at most in the settings of a cluster");
    key(value).and_then(|key| Some(key).filter(is_good).ok_or_else(words))
}

fn digest(value: &DeValue<'_>) -> Result<SecretDigest, String> {
    text(value)?.parse().map_err(str::to_owned)
}

fn blob(value: &DeValue<'_>) -> Result<String, String> {
    let blob = text(value)?;
    let is_good =
        blob.len() <= BLOB_MAX && blob.bytes().all(|it| it.is_ascii_alphanumeric() || b"+/=".contains(&it));
    is_good.then(|| blob.to_owned()).ok_or_else(|| format!("must be base64, {BLOB_MAX} characters at most"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Secret;

    const END: UnixTime = UnixTime(4_000_000_000);

    fn shared(key: &str, octet: u8) -> SharedSecret {
        let digest = Secret::new([octet; 32]).digest();
        let wrapped = WrappedSecret { key: key.to_owned(), digest, blob: "AAAA".to_owned() };
        SharedSecret { provider: "exec".to_owned(), wrapped }
    }

    #[test]
    fn a_secret_is_offered_then_in_force_and_required_at_last() {
        let (first, other) = (shared("k", 1), shared("k2", 1));
        let offered = with_offer("[esp]\nkey_bits = 128\n", &first);
        let said = ClusterKey::of(&offered);
        assert_eq!(
            (said.next.as_ref(), said.in_force.as_ref(), said.key.as_deref()),
            (Some(&first), None, Some("k"))
        );
        let in_force = with_offer_in_force(&offered, END);
        let said = ClusterKey::of(&in_force);
        assert_eq!((said.next, said.in_force.as_ref(), said.required), (None, Some(&first), false));
        assert!(in_force.contains("optional_until = \"2096-10-02T07:06:40Z\""), "{in_force}");
        let id = format!("kms-{}", first.wrapped.digest.id());
        assert_eq!(said.ppk_id, Some(id.clone()));
        let required = with_required_ppk(&in_force);
        assert!(ClusterKey::of(&required).required && required.contains("key_bits"), "{required}");
        assert!(required.contains("optional_until"), "{required}");
        let [early, late] = [END.0 - 1, END.0].map(|now| ClusterKey::of(&in_force).at(UnixTime(now)));
        assert_eq!(
            [(early.required, early.until), (late.required, late.until)],
            [(false, Some(END)), (true, None)]
        );

        let moved = with_offer_in_force(&with_offer(&required, &other), END);
        let said = ClusterKey::of(&moved);
        assert_eq!(
            (said.in_force, said.next, said.required, said.ppk_id),
            (Some(other), None, true, Some(id))
        );
        assert_eq!(with_offer_in_force(&moved, END), moved, "there is nothing to put in force");
    }

    #[test]
    fn marks_tell_keys_and_secrets_apart() {
        let marks = [shared("k", 1), shared("k2", 1), shared("k", 2)].map(|it| it.mark());
        assert!(marks[0] != marks[1] && marks[0] != marks[2] && marks[1] != marks[2]);
        assert_eq!(marks[0], shared("k", 1).mark());
    }

    #[test]
    fn settings_that_say_nothing_say_nothing() {
        for settings in
            ["", "[[[", "[secret]\nnext = 7\n", "[secret.next]\nkey = \"k\"\n", "secret = 1\nkms = 2\n"]
        {
            let said = ClusterKey::of(settings);
            assert_eq!(said, ClusterKey { required: true, ..ClusterKey::default() }, "{settings}");
        }
    }
}
