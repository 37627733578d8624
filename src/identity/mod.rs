//! NOUNS: who hosts are to each other, and how they prove it: by a shared secret, a key pair or a certificate; and the
//! PPKs that they share besides.
//!
//! What is secret here cannot be printed or cloned, and is overwritten when it goes. Nothing here reads a file or a
//! clock: `store` reads what the configuration names, and the time is an argument.

mod auth;
pub mod certificate;
mod key;
mod ppk;
mod secret;

pub use auth::{AuthMethod, Certified, Credentials, Expected, Identity, Proof, Proven};
pub use key::{CryptoFailed, KeyKind, NotAKey, PrivateKey, PublicKey};
pub use ppk::{Ppk, PpkRule, PpkTag, PpkUse};
pub use secret::{NotASecret, Secret, SecretDigest, SecretId};
