//! One request and its body.

use std::io::Read;

use ureq::RequestBuilder;
use ureq::http::Response;
use ureq::typestate::WithoutBody;

use super::answer::{Answer, judge, strong_etag};
use super::client::MAX_REDIRECTS;
use super::fault::Fault;
use super::ranges::Span;

/// A part that is shorter, and not all that was asked for, is one that ended early.
const LEAST_PART: u64 = 64 * 1024;

/// What is asked.
pub(super) type Request = RequestBuilder<WithoutBody>;
/// What comes.
pub(super) type Body = ureq::BodyReader<'static>;

/// An answer that brings bytes, and them.
pub(super) struct Reply {
    pub(super) answer: Answer,
    /// So little of what was asked for that each request must count as a failure: who asks for the rest would be asking for ever.
    pub(super) short: bool,
    pub(super) body: Body,
    /// The file's mark.
    pub(super) etag: Option<String>,
    /// Where redirects led, if they led anywhere.
    pub(super) moved: Option<String>,
}

/// What to ask for.
pub(super) struct Question<'q> {
    pub(super) url: &'q str,
    /// `None`: the whole file.
    pub(super) span: Option<Span>,
    /// How long the file is, once that is known.
    pub(super) known: Option<u64>,
    /// Only of the file with this mark.
    pub(super) if_range: Option<&'q str>,
}

/// Asks, and judges the head of the answer (FET-23).
pub(super) fn ask(agent: &ureq::Agent, question: &Question<'_>) -> Result<Reply, Fault> {
    let (url, response) = follow(agent, question.url, |mut request| {
        if let Some(span) = question.span {
            request = request.header("Range", format!("bytes={}-{}", span.start, span.end - 1));
            if let Some(mark) = question.if_range {
                request = request.header("If-Range", mark);
            }
        }
        request
    })?;
    let status = response.status().as_u16();
    let answer = match question.span {
        Some(span) => judge(span, question.known, status, response.headers())?,
        // A part that nobody asked for is no file.
        None if status == 206 => return Err(Fault::Status { status, retry_after: None }),
        None => judge(Span::new(0, 1), question.known, status, response.headers())?,
    };
    let short = match (answer, question.span) {
        (Answer::Part { span, total }, Some(asked)) => {
            span.end < asked.end && span.len() < LEAST_PART && total != Some(span.end)
        }
        _ => false,
    };
    let etag = strong_etag(response.headers());
    let moved = (url != question.url).then_some(url);
    Ok(Reply { answer, short, body: response.into_body().into_reader(), etag, moved })
}

/// Asks for what stands at an address, or where redirects lead; which address that was stands before the answer. Redirects are followed
/// here, and what stands in their bodies is not read (FET-30): the library would read it to its end, however long that takes, and
/// panics where the last chunk of it breaks off.
pub(super) fn follow(
    agent: &ureq::Agent,
    address: &str,
    ask_for: impl Fn(Request) -> Request,
) -> Result<(String, Response<ureq::Body>), Fault> {
    let mut url = address.to_owned();
    for _ in 0..=MAX_REDIRECTS {
        // Packed once more a range would be one of something else.
        let request = ask_for(agent.get(&url).header("Accept-Encoding", "identity"));
        let response = request.call().map_err(Fault::of_request)?;
        match (response.status().as_u16(), response.headers().get("location")) {
            (301 | 302 | 303 | 307 | 308, Some(to)) => {
                url = to.to_str().ok().and_then(|to| redirected(&url, to)).ok_or(Fault::Redirects)?;
            }
            _ => return Ok((url, response)),
        }
    }
    Err(Fault::Redirects)
}

/// Where a redirect leads from `url`; `None`: to no HTTP address. Name and password of `url` go with it only within the same server.
fn redirected(url: &str, to: &str) -> Option<String> {
    let to = to.split('#').next()?.trim();
    let (scheme, rest) = url.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let path = path.split(['?', '#']).next()?;
    let lower = to.to_ascii_lowercase();
    if lower.starts_with("http://") || lower.starts_with("https://") {
        return Some(to.to_owned());
    }
    // Another scheme stands before anything that a path could hold a colon behind.
    if to.is_empty() || to.split(['/', '?']).next()?.contains(':') {
        return None;
    }
    Some(match to.as_bytes() {
        [b'/', b'/', ..] => format!("{scheme}:{to}"),
        [b'/', ..] => format!("{scheme}://{authority}{to}"),
        [b'?', ..] => format!("{scheme}://{authority}{}{to}", if path.is_empty() { "/" } else { path }),
        _ => format!("{scheme}://{authority}{}/{to}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
    })
}

/// Reads once, whatever there is.
pub(super) fn read_some(body: &mut Body, into: &mut [u8], stall: std::time::Duration) -> Result<usize, Fault> {
    loop {
        match body.read(into) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other.map_err(|error| Fault::of_body(error, stall)),
        }
    }
}

/// Behind the last byte that was promised: lets the connection be used again, and finds out a server that sends more.
pub(super) fn read_end(body: &mut Body, stall: std::time::Duration) -> Result<(), Fault> {
    match read_some(body, &mut [0], stall)? {
        0 => Ok(()),
        _ => Err(Fault::TooLong),
    }
}

/// Where the head of an image ends, by the lengths of its four frames (IMG-2); or, where they cannot all be seen yet, where it ends at
/// the earliest. Nobody has authenticated them: they only say how much to ask for.
pub(super) fn head_end(first: &[u8]) -> Result<u64, u64> {
    let mut at = 0_u64;
    for _ in 0..4 {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let length = first.get(start.saturating_add(4)..start.saturating_add(8));
        let length = length.and_then(|length| length.try_into().ok()).map(u32::from_le_bytes).ok_or(at + 8)?;
        at += 8 + u64::from(length);
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fet_30_where_redirects_lead() {
        let from = |to| redirected("https://me:pw@a:8/x/y?q#f", to);
        for (to, leads) in [
            ("http://b/z", Some("http://b/z")),
            ("HTTPS://b/z#f", Some("HTTPS://b/z")),
            ("//b/z?r", Some("https://b/z?r")),
            ("/z", Some("https://me:pw@a:8/z")),
            ("z/../w", Some("https://me:pw@a:8/x/z/../w")),
            ("?r=http://c", Some("https://me:pw@a:8/x/y?r=http://c")),
            ("file:///etc/passwd", None),
            ("ftp://b", None),
            ("", None),
        ] {
            assert_eq!(from(to).as_deref(), leads, "{to}");
        }
        assert_eq!(redirected("http://a", "z").as_deref(), Some("http://a/z"));
        assert_eq!(redirected("http://a?q", "?r").as_deref(), Some("http://a/?r"));
    }

    #[test]
    fn fet_20_the_end_of_the_head_is_seen_in_its_first_bytes() {
        let mut head = Vec::new();
        for length in [3_u32, 5, 0, 1_000_000] {
            head.extend_from_slice(b"ABCD");
            head.extend_from_slice(&length.to_le_bytes());
            head.extend(std::iter::repeat_n(0, length.min(10) as usize));
        }
        assert_eq!(head_end(&head), Ok(8 * 4 + 3 + 5 + 1_000_000));
        assert_eq!(head_end(&head[..30]), Err(8 * 3 + 3 + 5));
        assert_eq!(head_end(&[]), Err(8));
        assert_eq!(head_end(&[0xFF; 64]), Err(8 + 0xFFFF_FFFF + 8));
    }
}
