//! One request and its body.

use std::io::Read;

use ureq::ResponseExt;

use super::answer::{Answer, judge, strong_etag};
use super::fault::Fault;
use super::ranges::Span;

/// What comes.
pub(super) type Body = ureq::BodyReader<'static>;

/// An answer that brings bytes, and them.
pub(super) struct Reply {
    pub(super) answer: Answer,
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
    // Packed once more a range would be one of something else.
    let mut request = agent.get(question.url).header("Accept-Encoding", "identity");
    if let Some(span) = question.span {
        request = request.header("Range", format!("bytes={}-{}", span.start, span.end - 1));
        if let Some(mark) = question.if_range {
            request = request.header("If-Range", mark);
        }
    }
    let response = request.call().map_err(Fault::of_request)?;
    let status = response.status().as_u16();
    let answer = match question.span {
        Some(span) => judge(span, question.known, status, response.headers())?,
        // A part that nobody asked for is no file.
        None if status == 206 => return Err(Fault::Status { status, retry_after: None }),
        None => judge(Span::new(0, 1), question.known, status, response.headers())?,
    };
    let moved = response.get_uri().to_string();
    let moved = (moved != question.url && moved.starts_with("http")).then_some(moved);
    let etag = strong_etag(response.headers());
    Ok(Reply { answer, body: response.into_body().into_reader(), etag, moved })
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

/// Where the head of an image ends, by the lengths of its four frames (IMG-2), as far as they can be seen in its first bytes. Nobody has
/// authenticated them: they only say how much to ask for.
pub(super) fn head_end(first: &[u8]) -> Option<u64> {
    let mut at = 0_u64;
    for _ in 0..4 {
        let start = usize::try_from(at).ok()?;
        let length = first.get(start.checked_add(4)?..start.checked_add(8)?)?;
        at += 8 + u64::from(u32::from_le_bytes(length.try_into().ok()?));
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fet_20_the_end_of_the_head_is_seen_in_its_first_bytes() {
        let mut head = Vec::new();
        for length in [3_u32, 5, 0, 1_000_000] {
            head.extend_from_slice(b"ABCD");
            head.extend_from_slice(&length.to_le_bytes());
            head.extend(std::iter::repeat_n(0, length.min(10) as usize));
        }
        assert_eq!(head_end(&head), Some(8 * 4 + 3 + 5 + 1_000_000));
        assert_eq!(head_end(&head[..30]), None);
        assert_eq!(head_end(&[]), None);
        assert_eq!(head_end(&[0xFF; 64]), None);
    }
}
