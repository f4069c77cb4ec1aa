//! FET-23, answer by answer.

use super::*;
use proptest::prelude::*;
use ureq::http::{HeaderName, HeaderValue};

const ASKED: Span = Span { start: 100, end: 200 };

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap());
    let mut map = HeaderMap::new();
    for (name, value) in pairs.iter().map(pair) {
        map.append(name, value);
    }
    map
}

fn answer(known: Option<u64>, status: u16, pairs: &[(&str, &str)]) -> Result<Answer, Fault> {
    judge(ASKED, known, status, &headers(pairs))
}

fn part(start: u64, end: u64, total: Option<u64>) -> Answer {
    Answer::Part { span: Span { start, end }, total }
}

#[test]
fn fet_23_what_is_accepted() {
    let range = |text| answer(Some(1000), 206, &[("content-range", text)]).unwrap();
    assert_eq!(range("bytes 100-199/1000"), part(100, 200, Some(1000)));
    assert_eq!(range("bytes 100-199/*"), part(100, 200, None));
    // Less than was asked for: the rest is asked for again.
    assert_eq!(range("bytes 100-149/1000"), part(100, 150, Some(1000)));
    let with_length =
        [("content-range", "bytes 100-199/1000"), ("content-length", "100"), ("content-encoding", "identity")];
    assert_eq!(answer(None, 206, &with_length).unwrap(), part(100, 200, Some(1000)));
    assert_eq!(answer(None, 200, &[]).unwrap(), Answer::Whole { total: None });
    assert_eq!(answer(Some(7), 200, &[("content-length", "7")]).unwrap(), Answer::Whole { total: Some(7) });
}

#[test]
fn fet_23_ranges_that_nobody_asked_for() {
    for range in [
        "bytes 0-99/1000",
        "bytes 101-199/1000",
        "bytes 100-200/1000",
        "bytes 100-199/150",
        "bytes 199-100/1000",
        "bytes 100-99/1000",
        "bytes 100-18446744073709551615/*",
        "bytes */1000",
        "bytes=100-199/1000",
        "bytes +100-199/1000",
        "bytes 100-199",
        "items 100-199/1000",
        "",
    ] {
        let error = answer(None, 206, &[("content-range", range)]).unwrap_err();
        assert!(matches!(error, Fault::WrongRange(_)) && error.is_final(), "{range}: {error}");
    }
    let without = answer(None, 206, &[("content-length", "100")]).unwrap_err();
    assert!(matches!(without, Fault::WrongRange(_)), "{without}");
    let two = [("content-range", "bytes 100-199/1000"), ("content-range", "bytes 300-399/1000")];
    assert!(matches!(answer(None, 206, &two), Err(Fault::WrongRange(_))));
    let longer = [("content-range", "bytes 100-199/1000"), ("content-length", "101")];
    assert!(matches!(answer(None, 206, &longer), Err(Fault::WrongRange(_))));
}

#[test]
fn fet_23_several_ranges_in_one_answer() {
    let error = answer(None, 206, &[("content-type", "Multipart/byteranges; boundary=x")]).unwrap_err();
    assert!(error.to_string().contains("byteranges") && error.is_final(), "{error}");
}

#[test]
fn fet_23_a_body_packed_once_more() {
    for status in [200, 206] {
        let pairs = [("content-encoding", "gzip"), ("content-range", "bytes 100-199/1000")];
        let error = answer(None, status, &pairs).unwrap_err();
        assert!(matches!(&error, Fault::Encoded(name) if name == "gzip") && error.is_final(), "{error}");
    }
}

#[test]
fn fet_24_another_length_is_another_file() {
    let other = |status, pairs: &[(&str, &str)]| {
        let error = answer(Some(1000), status, pairs).unwrap_err();
        assert!(matches!(error, Fault::OtherFile { found: 999, expected: 1000 }), "{status}: {error}");
        assert!(error.is_final());
    };
    other(200, &[("content-length", "999")]);
    other(206, &[("content-range", "bytes 100-199/999")]);
    other(416, &[("content-range", "bytes */999")]);
    let error = answer(Some(1000), 416, &[("content-range", "bytes */1000")]).unwrap_err();
    assert!(matches!(error, Fault::WrongRange(_)), "{error}");
}

#[test]
fn fet_27_which_answers_are_worth_another_try() {
    for (status, again) in
        [(404, false), (403, false), (407, false), (304, false), (416, false), (501, false), (505, false)]
            .into_iter()
            .chain([(500, true), (502, true), (503, true), (504, true), (429, true), (408, true)])
    {
        let fault = answer(None, status, &[("retry-after", "7")]).unwrap_err();
        assert_eq!(!fault.is_final(), again, "{status}");
        if status != 416 {
            assert_eq!(fault.retry_after(), Some(Duration::from_secs(7)), "{status}");
        }
    }
    let dated = answer(None, 503, &[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]).unwrap_err();
    assert_eq!(dated.retry_after(), None);
}

#[test]
fn fet_24_only_strong_marks_count() {
    let mark = |text| strong_etag(&headers(&[("etag", text)]));
    assert_eq!(mark("\"abc\"").as_deref(), Some("\"abc\""));
    for weak in ["W/\"abc\"", "abc", "\"", ""] {
        assert_eq!(mark(weak), None, "{weak}");
    }
    assert_eq!(mark(&format!("\"{}\"", "x".repeat(600))), None);
}

proptest! {
    /// Whatever a server says: a part that is accepted begins where was asked, is not empty, and is no longer than asked.
    #[test]
    fn fet_23_no_answer_brings_other_bytes(range in "bytes [0-9]{1,4}-[0-9]{1,4}/([0-9]{1,5}|\\*)|\\PC{0,40}", status in 200_u16..210) {
        let Ok(value) = HeaderValue::from_str(&range) else { return Ok(()) };
        let mut map = HeaderMap::new();
        map.insert("content-range", value);
        if let Ok(Answer::Part { span, total }) = judge(ASKED, Some(1000), status, &map) {
            prop_assert_eq!(status, 206);
            prop_assert!(span.start == ASKED.start && !span.is_empty() && span.end <= ASKED.end);
            prop_assert!(total.is_none_or(|total| total == 1000));
        }
    }
}
