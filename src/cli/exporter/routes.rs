//! What is asked, and what is answered.

use std::rc::Rc;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};

use super::source::AgentSource;

/// The text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What there is to be asked for.
#[derive(Debug, PartialEq, Eq)]
enum PageRoute {
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
            "/metrics" | "/healthz" if method != Method::GET => PageRoute::NotAllowed,
            "/metrics" => PageRoute::Metrics,
            "/healthz" => PageRoute::Health,
            _ => PageRoute::NotFound,
        }
    }
}

/// Answers a request.
pub(super) async fn answer(source: &Rc<AgentSource>, method: &Method, path: &str) -> Response<Full<Bytes>> {
    match PageRoute::of(method, path) {
        PageRoute::Metrics => {
            let (status, body) = source.metrics().await;
            response(status, if status == StatusCode::OK { METRICS } else { PLAIN }, body)
        }
        PageRoute::Health => response(StatusCode::OK, PLAIN, "ok\n".into()),
        PageRoute::NotFound => {
            response(StatusCode::NOT_FOUND, PLAIN, "there is /metrics, and /healthz\n".into())
        }
        PageRoute::NotAllowed => {
            let mut response = response(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            response
        }
    }
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
    fn what_there_is_to_ask_for() {
        assert_eq!(PageRoute::of(&Method::GET, "/metrics"), PageRoute::Metrics);
        assert_eq!(PageRoute::of(&Method::GET, "/healthz"), PageRoute::Health);
        assert_eq!(PageRoute::of(&Method::POST, "/metrics"), PageRoute::NotAllowed);
        assert_eq!(PageRoute::of(&Method::GET, "/metrics/"), PageRoute::NotFound);
    }
}
