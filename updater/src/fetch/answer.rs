//! What a server's answer to a range request means: a pure function of status and headers (FET-23).

use std::time::Duration;

use ureq::http::HeaderMap;

use super::fault::{Fault, shown};
use super::ranges::Span;

/// An answer that brings bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 206: these bytes of the file, which begin where was asked and may end earlier; and the length of the whole file if it is told.
    Part {
        /// What the body brings.
        span: Span,
        /// The file.
        total: Option<u64>,
    },
    /// 200: the file from its beginning; the server knows no ranges, or does not want to (FET-25).
    Whole {
        /// The file, if it is told.
        total: Option<u64>,
    },
}

impl Answer {
    /// The length of the whole file, where it is told.
    pub fn total(self) -> Option<u64> {
        match self {
            Answer::Part { total, .. } | Answer::Whole { total } => total,
        }
    }
}

/// Judges an answer to a request for `asked`. `known`: how long the file is, once that is known.
///
/// # Errors
/// What the server did wrong.
pub fn judge(asked: Span, known: Option<u64>, status: u16, headers: &HeaderMap) -> Result<Answer, Fault> {
    let answer = match status {
        200 => {
            refuse_encoding(headers)?;
            Answer::Whole { total: number(headers, "content-length")? }
        }
        206 => {
            refuse_encoding(headers)?;
            part(asked, headers)?
        }
        416 => {
            let total = text(headers, "content-range").and_then(|range| range.strip_prefix("bytes */")?.parse().ok());
            return Err(match (total, known) {
                (Some(found), Some(expected)) if found != expected => Fault::OtherFile { found, expected },
                (Some(found), _) => {
                    Fault::WrongRange(format!("416: it has {found} bytes, asked was from {}", asked.start))
                }
                (None, _) => Fault::Status { status, retry_after: None },
            });
        }
        _ => return Err(Fault::Status { status, retry_after: retry_after(headers) }),
    };
    match (answer.total(), known) {
        (Some(found), Some(expected)) if found != expected => Err(Fault::OtherFile { found, expected }),
        _ => Ok(answer),
    }
}

fn part(asked: Span, headers: &HeaderMap) -> Result<Answer, Fault> {
    // Several ranges in one answer come only to who asked for several.
    if let Some(kind) = text(headers, "content-type").filter(|kind| kind.to_ascii_lowercase().starts_with("multipart/"))
    {
        return Err(Fault::WrongRange(shown(kind)));
    }
    let wrong = |told: &str| Fault::WrongRange(shown(told));
    let mut all = headers.get_all("content-range").iter();
    let told = all.next().and_then(|value| value.to_str().ok()).ok_or_else(|| wrong("no Content-Range"))?;
    if all.next().is_some() {
        return Err(wrong("two Content-Range"));
    }
    let (span, total) = content_range(told).ok_or_else(|| wrong(told))?;
    if span.start != asked.start || span.end > asked.end || total.is_some_and(|total| span.end > total) {
        return Err(wrong(told));
    }
    if number(headers, "content-length")?.is_some_and(|length| length != span.len()) {
        return Err(wrong(&format!("{told}, but of another length")));
    }
    Ok(Answer::Part { span, total })
}

/// `bytes FIRST-LAST/TOTAL`, TOTAL a number or `*`.
fn content_range(text: &str) -> Option<(Span, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (digits(first)?, digits(last)?);
    let span = Span { start: first, end: last.checked_add(1)? };
    let total = if total == "*" { None } else { Some(digits(total)?) };
    (!span.is_empty()).then_some((span, total))
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The image is compressed already; packed once more its ranges would be those of something else.
fn refuse_encoding(headers: &HeaderMap) -> Result<(), Fault> {
    match text(headers, "content-encoding") {
        Some(encoding) if !encoding.trim().is_empty() && !encoding.trim().eq_ignore_ascii_case("identity") => {
            Err(Fault::Encoded(shown(encoding)))
        }
        _ => Ok(()),
    }
}

fn number(headers: &HeaderMap, name: &'static str) -> Result<Option<u64>, Fault> {
    let Some(value) = text(headers, name) else { return Ok(None) };
    digits(value.trim()).map(Some).ok_or_else(|| Fault::Broken(shown(&format!("{name}: {value}"))))
}

fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// In seconds; as a date it would need a clock that is right (THR-6).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    digits(text(headers, "retry-after")?.trim()).map(Duration::from_secs)
}

/// The file's mark, if it is one that stands for exact bytes: weak ones (`W/`) do not.
pub fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let tag = text(headers, "etag")?;
    let whole = tag.len() >= 2 && tag.len() <= 512 && tag.starts_with('"') && tag.ends_with('"');
    whole.then(|| tag.to_owned())
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
