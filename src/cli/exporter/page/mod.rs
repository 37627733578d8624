//! The page at `/`: how the pairs stand, for people. It is one document with all that it needs, and shows what the agent
//! says: in a cluster the pairs of all nodes, and always those of this host.
//!
//! ```text
//! source  what is shown, asked once for all who look
//! matrix  all pairs of a cluster, each as the worse of what its ends say
//! sheet   the document, with the rows of this host
//! board   the square of all pairs, and what is to be said of it
//! words   the words, letters and marks that they have in common
//! ```

mod board;
mod matrix;
mod sheet;
mod source;
#[cfg(test)]
mod tests;
mod words;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use sha2::{Digest as _, Sha256};

pub(super) use self::source::PageSource;
use crate::observe::member_pairs::ClusterPairs;
use crate::observe::status::Status;

/// How the page looks.
const STYLE: &str = include_str!("style.css");
/// What keeps it up to date. Without it the browser asks again by itself.
const SCRIPT: &str = include_str!("script.js");

/// What is shown.
#[derive(Debug, Clone, Default)]
struct PageView {
    /// How this host stands, as far as that was ever known.
    status: Option<Status>,
    /// How the pairs of all nodes stand, in a cluster.
    pairs: Option<ClusterPairs>,
    /// Why it is not known how they stand now.
    trouble: Vec<String>,
}

/// What a browser is told with the page: it may do and load nothing but what the page itself brings, and nobody may put it
/// into another page.
pub(super) fn headers() -> HeaderMap {
    let hash = |asset: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(asset)));
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    let fixed = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let fixed = fixed.into_iter().map(|(name, value)| (name, HeaderValue::from_static(value)));
    // Base64 and words of ours: it is a value always.
    let policy = HeaderValue::from_str(&policy).ok().map(|policy| (CONTENT_SECURITY_POLICY, policy));
    fixed.chain(policy).collect()
}
