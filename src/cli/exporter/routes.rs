//! What is asked, and what is answered.

use std::rc::Rc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::names::HostNames;
use super::page::{self, PageSource};
use super::source::AgentSource;

/// The text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What there is to be asked for.
#[derive(Debug, PartialEq, Eq)]
enum PageRoute {
    /// The page for people.
    Page,
    /// All series.
    Metrics,
    /// Whether the exporter itself runs.
    Health,
    NotAllowed,
    NotFound,
}

impl PageRoute {
    fn of(method: &Method, path: &str) -> Self {
        match path {
            "/" | "/metrics" | "/healthz" if method != Method::GET => PageRoute::NotAllowed,
            "/" => PageRoute::Page,
            "/metrics" => PageRoute::Metrics,
            "/healthz" => PageRoute::Health,
            _ => PageRoute::NotFound,
        }
    }
}

/// What answers are made of.
pub(super) struct Desk {
    pub(super) metrics: Rc<AgentSource>,
    pub(super) page: Rc<PageSource>,
    pub(super) names: HostNames,
}

/// The way that a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doorway {
    /// Browsers come here, too, sent by whatever site they show.
    Network,
    /// No browser comes here but through a proxy, which knows its own names.
    Unix,
}

/// Answers a request.
pub(super) async fn answer<B>(desk: &Desk, door: Doorway, request: &Request<B>) -> Response<Full<Bytes>> {
    match PageRoute::of(request.method(), request.uri().path()) {
        // Monitoring systems ask by any name, and what they get is no page.
        PageRoute::Page
            if door == Doorway::Network && !desk.names.are_asked(request.uri(), request.headers()) =>
        {
            let words = "this page is shown by the host's own name and by its addresses alone: ask for \
                         http://127.0.0.1:10931/ or another address, or give the exporter this name with --name\n";
            response(StatusCode::MISDIRECTED_REQUEST, PLAIN, words.into())
        }
        PageRoute::Page if !is_looked_at(request.headers()) => {
            let words = "open this page directly: other sites may only link to it\n";
            response(StatusCode::FORBIDDEN, PLAIN, words.into())
        }
        PageRoute::Page => {
            let (status, html) = desk.page.page().await;
            let mut response = Response::new(Full::new(html));
            *response.status_mut() = status;
            *response.headers_mut() = page::headers();
            response
        }
        PageRoute::Metrics => {
            let (status, body) = desk.metrics.metrics().await;
            response(status, if status == StatusCode::OK { METRICS } else { PLAIN }, body)
        }
        PageRoute::Health => response(StatusCode::OK, PLAIN, "ok\n".into()),
        PageRoute::NotFound => {
            response(StatusCode::NOT_FOUND, PLAIN, "there is /, /metrics and /healthz\n".into())
        }
        PageRoute::NotAllowed => {
            let mut response = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            response
        }
    }
}

/// Whether somebody looks at the page, as far as a browser says why it asks. What another site has it load, as a picture
/// for example, costs the agent as much, and nobody sees it.
fn is_looked_at(headers: &HeaderMap) -> bool {
    let says = |name: &str, word: &str| headers.get(name).is_some_and(|value| value == word);
    let is_elsewhere = says("sec-fetch-site", "cross-site") || says("sec-fetch-site", "same-site");
    !is_elsewhere || (says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document"))
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_sites_can_send_somebody_to_the_page_and_load_it_for_nothing_else() {
        let is_looked_at = |site: &str, mode: &str, dest: &str| {
            let said = [("sec-fetch-site", site), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)];
            let said = said.map(|(name, word)| (name.parse().unwrap(), word.parse().unwrap()));
            super::is_looked_at(&said.into_iter().collect())
        };
        assert!(is_looked_at("none", "navigate", "document"), "typed");
        assert!(is_looked_at("cross-site", "navigate", "document"), "a link");
        assert!(is_looked_at("same-origin", "cors", "empty"), "the page renews itself");
        for site in ["cross-site", "same-site"] {
            assert!(!is_looked_at(site, "no-cors", "image") && !is_looked_at(site, "navigate", "iframe"));
        }
        assert!(super::is_looked_at(&HeaderMap::new()), "no browser, or an old one");
    }

    #[test]
    fn what_there_is_to_ask_for() {
        assert_eq!(PageRoute::of(&Method::GET, "/"), PageRoute::Page);
        assert_eq!(PageRoute::of(&Method::POST, "/"), PageRoute::NotAllowed);
        assert_eq!(PageRoute::of(&Method::GET, "/metrics"), PageRoute::Metrics);
        assert_eq!(PageRoute::of(&Method::GET, "/healthz"), PageRoute::Health);
        assert_eq!(PageRoute::of(&Method::POST, "/metrics"), PageRoute::NotAllowed);
        assert_eq!(PageRoute::of(&Method::GET, "/metrics/"), PageRoute::NotFound);
    }
}
