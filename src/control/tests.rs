use proptest::prelude::*;

use super::*;
use crate::observe::RowProgress;
use crate::observe::status::Summary;
use crate::types::{Protection, ReasonCode, RowState};

fn requests() -> [Request; 11] {
    [
        Request::Ping,
        Request::Status,
        Request::Enable,
        Request::EnableWith(Terms { strict: true, try_s: Some(60) }),
        Request::Confirm,
        Request::Disable,
        Request::Plan,
        Request::Follow { after: 7, hold_ms: 5_000 },
        Request::PlanWith { file: "/tmp/a file".into(), text: "cluster = \"x\"\n".to_owned() },
        Request::Preview { file: "/tmp/a file".into(), text: "cluster = \"x\"\n".to_owned() },
        Request::Reload,
    ]
}

#[test]
fn requests_come_through() {
    for request in requests() {
        let line = encode_request(&request);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with('\n') && line.len() <= REQUEST_LIMIT);
        assert_eq!(decode_request(line.as_bytes()), Ok(request));
    }
    assert_eq!(encode_request(&Request::Enable), "{\"v\":1,\"request\":\"enable\"}\n");
    assert_eq!(Request::from(Terms::default()), Request::Enable, "which earlier agents know too");
    let strict = "{\"v\":1,\"request\":{\"enable_with\":{\"strict\":true}}}\n";
    assert_eq!(encode_request(&Terms { strict: true, try_s: None }.into()), strict);
    // What a later version adds has a default here.
    let bare = b"{\"v\":1,\"request\":{\"enable_with\":{}}}";
    assert_eq!(decode_request(bare), Ok(Request::EnableWith(Terms::default())));
}

#[test]
fn replies_come_through() {
    let plan = vec![PlanLine { change: Change::Add, object: "SA \"x\"\nto y".to_owned() }];
    let error = Reply::Error { code: ErrorCode::NotPermitted, message: "no".to_owned() };
    let row = RowProgress {
        node: serde_json::from_value("b".into()).unwrap(),
        local: [10, 0, 0, 1].into(),
        remote: [10, 0, 0, 2].into(),
        state: RowState::Clear,
        reason: Some("two\nlines".to_owned()),
        reason_code: Some(ReasonCode::NoAnswer),
        waiting: true,
    };
    let progress = Progress {
        revision: 3,
        protection: Protection::On,
        summary: Summary { peers: 1, clear: 1, ..Summary::default() },
        rows: vec![row],
    };
    let reloaded = Reply::Reloaded(vec!["x".to_owned()]);
    for reply in
        [Reply::Done, Reply::Plan(plan), Reply::Plan(Vec::new()), Reply::Progress(progress), reloaded, error]
    {
        let line = encode_reply(reply.clone());
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert_eq!(decode_reply(line.as_bytes()), Ok(reply));
    }
    assert_eq!(
        encode_reply(Reply::Error { code: ErrorCode::BadRequest, message: "x".to_owned() }),
        "{\"v\":1,\"reply\":{\"error\":{\"code\":\"bad_request\",\"message\":\"x\"}}}\n"
    );
}

#[test]
fn another_version_is_told_from_nonsense() {
    assert_eq!(decode_request(b"{\"v\":2,\"request\":{\"new\":1}}\n"), Err(ControlError::Version(2)));
    for nonsense in [
        "",
        "\n",
        "{}",
        "[]",
        "{\"v\":1}",
        "{\"v\":1,\"request\":\"destroy\"}",
        "{\"v\":\"1\"}",
        "GET / HTTP/1.1",
    ] {
        let error = decode_request(nonsense.as_bytes()).unwrap_err();
        assert!(matches!(error, ControlError::Malformed(_)), "{nonsense}: {error}");
    }
}

#[test]
fn too_long_is_refused_before_it_is_parsed() {
    let padded = |length: usize| {
        let mut line = encode_request(&Request::Ping).trim_end().to_owned();
        line.push_str(&" ".repeat(length - line.len()));
        line
    };
    assert_eq!(decode_request(padded(REQUEST_LIMIT).as_bytes()), Ok(Request::Ping));
    assert_eq!(
        decode_request(padded(REQUEST_LIMIT + 1).as_bytes()),
        Err(ControlError::TooLong(REQUEST_LIMIT))
    );
    // Nesting is bounded too.
    assert!(decode_request("[".repeat(REQUEST_LIMIT).as_bytes()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50_000))]
    #[test]
    fn no_bytes_can_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_request(&bytes);
        let _ = decode_reply(&bytes);
    }

    #[test]
    fn a_mutated_request_is_that_request_or_refused(at in 0usize..60, byte: u8, which in 0usize..11) {
        let mut line = encode_request(&requests()[which]).into_bytes();
        let at = at % line.len();
        line[at] = byte;
        if let Ok(request) = decode_request(&line) {
            let varied = matches!(
                request,
                Request::Follow { .. } | Request::EnableWith(_) | Request::PlanWith { .. } | Request::Preview { .. }
            );
            prop_assert!(varied || requests().contains(&request));
        }
    }
}
