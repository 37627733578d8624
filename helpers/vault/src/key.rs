//! The name of a key of Transit, and what binds a blob to its cluster.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hostseal_kms_protocol::{Context, Refusal};

use crate::refused::Refused;

/// Where Transit is mounted unless the name says otherwise.
const MOUNT: &str = "transit";

/// A key of Transit.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    mount: String,
    name: String,
}

impl Key {
    /// Reads `NAME`, `MOUNT/NAME` or `MOUNT/keys/NAME`.
    ///
    /// # Errors
    /// It is something else.
    pub fn read(key: &str) -> Result<Self, Refused> {
        let is_good = |part: &str| {
            let letters = part.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it));
            // A dot at an end is no name of Transit's, and "." and ".." lead elsewhere.
            letters && !part.is_empty() && !part.starts_with('.') && !part.ends_with('.')
        };
        if !key.split('/').all(is_good) {
            return Err(Refused::unavailable(format!(
                "{key} is no name of a key of Transit: say MOUNT/NAME, such as transit/hostseal"
            )));
        }
        let (mount, name) = key.rsplit_once('/').unwrap_or((MOUNT, key));
        let mount = mount.strip_suffix("/keys").unwrap_or(mount);
        Ok(Self { mount: mount.to_owned(), name: name.to_owned() })
    }

    /// Where something is done with it.
    pub fn path(&self, what: &str) -> String {
        format!("{}/{what}/{}", self.mount, self.name)
    }

    pub fn mount(&self) -> &str {
        &self.mount
    }
}

/// By what a blob is bound to its cluster. Transit says of no blob how it was made, so the blob itself does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// The key for it is derived from the name of the cluster.
    Context,
    /// The name of the cluster is authenticated with it.
    AssociatedData,
    /// Both, by whoever could not know which one the key takes: a key that is not derived passes over a context.
    Both,
}

impl Binding {
    const ALL: [Self; 3] = [Self::Context, Self::AssociatedData, Self::Both];

    fn word(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::AssociatedData => "associated_data",
            Self::Both => "both",
        }
    }

    /// The blob of what Transit calls a ciphertext.
    pub fn blob(self, ciphertext: &str) -> String {
        STANDARD.encode(format!("{} {ciphertext}", self.word()))
    }

    /// What a blob says of itself, and Transit's ciphertext.
    ///
    /// # Errors
    /// It was made by somebody else.
    pub fn read(blob: &[u8]) -> Result<(Self, &str), Refused> {
        let read = || {
            let (word, ciphertext) = std::str::from_utf8(blob).ok()?.split_once(' ')?;
            let binding = Self::ALL.into_iter().find(|it| it.word() == word)?;
            Some((binding, ciphertext))
        };
        read().ok_or_else(|| Refused::new(Refusal::Broken, "kms-vault has not made this blob"))
    }

    /// The context, and the associated data, in base64.
    pub fn parameters(self, context: &Context) -> [Option<String>; 2] {
        let bound: Vec<_> = context.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let bound = STANDARD.encode(bound.join("\n"));
        match self {
            Self::Context => [Some(bound), None],
            Self::AssociatedData => [None, Some(bound)],
            Self::Both => [Some(bound.clone()), Some(bound)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_with_or_without_their_mount() {
        let read = |key: &str| Key::read(key).map(|key| key.path("decrypt")).unwrap_or_default();
        assert_eq!(read("prod"), "transit/decrypt/prod");
        assert_eq!(read("team/a/prod-1"), "team/a/decrypt/prod-1");
        assert_eq!(read("transit/keys/prod"), "transit/decrypt/prod");
        for wrong in
            ["", "/prod", "transit/", "a//b", "../prod", "transit/..", "a/./b", "a?b", "a%2fb", "a b", "é"]
        {
            assert_eq!(read(wrong), "", "{wrong}");
        }
    }

    #[test]
    fn a_blob_says_how_it_is_bound() {
        let context = Context::from([("hostseal-cluster".to_owned(), "prod".to_owned())]);
        for binding in Binding::ALL {
            let blob = STANDARD.decode(binding.blob("vault:v1:AAAA")).unwrap();
            assert_eq!(Binding::read(&blob), Ok((binding, "vault:v1:AAAA")));
            let sent = binding.parameters(&context);
            assert!(sent.iter().flatten().all(|it| it == "aG9zdHNlYWwtY2x1c3Rlcj1wcm9k"));
            assert_eq!(
                sent.map(|it| it.is_some()).map(usize::from),
                match binding {
                    Binding::Context => [1, 0],
                    Binding::AssociatedData => [0, 1],
                    Binding::Both => [1, 1],
                }
            );
        }
        for other in [&b""[..], b"vault:v1:AAAA", b"none vault:v1:AAAA", b"\xff context x"] {
            assert_eq!(*Binding::read(other).unwrap_err().refusal(), Refusal::Broken);
        }
    }
}
