//! What servers do wrong, and how it is told (FET-23).

use std::io;
use std::time::Duration;

/// One thing that one server did wrong.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Fault {
    /// It cannot be reached, or does not speak HTTP.
    #[error("cannot be fetched from ({0})")]
    NoAnswer(String),
    /// It answered with a status that brings nothing.
    #[error("answered {status}{}", advice(*.status))]
    Status {
        /// The HTTP status code.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// One redirect led to the next.
    #[error(
        "redirects more than {} times, or to no http address: it sends clients in a loop",
        super::client::MAX_REDIRECTS
    )]
    Redirects,
    /// No byte for a while.
    #[error("sent nothing for {} s", .0.as_secs())]
    Silent(Duration),
    /// Few bytes for a while.
    #[error("sent less than {least} bytes in {} s", waited.as_secs())]
    Trickle {
        /// What should have come.
        least: u64,
        /// In what time.
        waited: Duration,
    },
    /// More than the length promised.
    #[error("sent more than it promised")]
    TooLong,
    /// Less than the length promised.
    #[error("ended early")]
    EndedEarly,
    /// The connection broke, or what came is not HTTP.
    #[error("broke off ({0})")]
    Broken(String),
    /// A partial answer that is not the one that was asked for.
    #[error("answered with another range than was asked for ({0})")]
    WrongRange(String),
    /// The body is packed once more, which nobody asked for.
    #[error("answered with the encoding {0}, which nobody asked for: it must send the file as it is")]
    Encoded(String),
    /// The file is not the one whose head was read: its length differs.
    #[error("has another file there, of {found} bytes; this image has {expected}")]
    OtherFile {
        /// By this server.
        found: u64,
        /// By the authenticated head, or by the first answer.
        expected: u64,
    },
    /// The head of the file is not one that this machine trusts.
    #[error("has something else there: its head is no image's that this machine trusts")]
    OtherHead,
    /// The bytes of a chunk are not the signed ones.
    #[error("has another version there, or a damaged one: chunk {chunk} is not as signed")]
    OtherBytes {
        /// The chunk's number.
        chunk: usize,
    },
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => ": this machine may not read that",
        404 | 410 => ": is the address right?",
        407 => ": the proxy wants a name and a password",
        _ => "",
    }
}

impl Fault {
    /// Asking the same server again would change nothing.
    pub fn is_final(&self) -> bool {
        match self {
            Fault::Status { status, .. } => !matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504 | 520..=599),
            Fault::Redirects | Fault::WrongRange(_) | Fault::Encoded(_) => true,
            Fault::TooLong | Fault::OtherFile { .. } | Fault::OtherHead | Fault::OtherBytes { .. } => true,
            Fault::NoAnswer(_) | Fault::Silent(_) | Fault::Trickle { .. } => false,
            Fault::EndedEarly | Fault::Broken(_) => false,
        }
    }

    /// The stable word of IFC-3.
    pub fn cause(&self) -> &'static str {
        match self {
            Fault::NoAnswer(_) => "http-fetch",
            Fault::Status { .. } => "http-status",
            Fault::Redirects => "http-redirects",
            Fault::Silent(_) => "http-silent",
            Fault::Trickle { .. } => "http-trickle",
            Fault::TooLong => "http-too-long",
            Fault::EndedEarly => "http-ended-early",
            Fault::Broken(_) => "http-broken",
            Fault::WrongRange(_) => "http-range",
            Fault::Encoded(_) => "http-encoding",
            Fault::OtherFile { .. } => "http-other-file",
            Fault::OtherHead => "http-other-head",
            Fault::OtherBytes { .. } => "http-other-bytes",
        }
    }

    /// When the server wants to be asked again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Fault::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Of a request that got no answer.
    pub fn of_request(error: ureq::Error) -> Self {
        match error {
            ureq::Error::StatusCode(status) => Fault::Status { status, retry_after: None },
            other => Fault::NoAnswer(shown(&other.to_string())),
        }
    }

    /// Of a body that failed while it was read.
    pub fn of_body(error: io::Error, stall: Duration) -> Self {
        let inside = error.get_ref().and_then(|inside| inside.downcast_ref::<ureq::Error>());
        match inside {
            Some(ureq::Error::Timeout(_)) => Fault::Silent(stall),
            _ if error.kind() == io::ErrorKind::TimedOut => Fault::Silent(stall),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => Fault::EndedEarly,
            _ => Fault::Broken(shown(&error.to_string())),
        }
    }
}

/// What a server said, fit for a terminal and a log line.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut out: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

/// Every address failed, or failed too often. Inside an [`io::Error`], because readers of images know no other.
#[derive(Debug, Clone)]
pub struct FetchError {
    /// Which address failed how, the one that ended it last.
    pub failures: Vec<Failure>,
    /// How many bytes had come over the wire.
    pub received: u64,
}

/// How one address failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The address, without name and password.
    pub url: String,
    /// What it did last.
    pub fault: Fault,
    /// How often it failed.
    pub times: u32,
}

impl FetchError {
    /// The stable word of IFC-3: of what ended it.
    pub fn cause(&self) -> &'static str {
        self.failures.last().map_or("read-error", |failure| failure.fault.cause())
    }
}

impl FetchError {
    /// Somebody may have it later.
    pub fn may_pass(&self) -> bool {
        self.failures.iter().any(|failure| !failure.fault.is_final())
    }
}

impl std::fmt::Display for FetchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, failure) in self.failures.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{} {}", failure.url, failure.fault)?;
            if failure.times > 1 {
                write!(f, " ({} times)", failure.times)?;
            }
        }
        if self.received > 0 {
            write!(f, "; {} bytes had come", self.received)?;
        }
        f.write_str(if self.may_pass() {
            ": try again, or name another mirror with --mirror"
        } else {
            ": name another mirror with --mirror"
        })
    }
}

impl std::error::Error for FetchError {}

/// User name and password of an address are not for logs.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_reach_messages() {
        assert_eq!(without_credentials("https://me:secret@host:8/p@th?q"), "https://host:8/p@th?q");
        assert_eq!(without_credentials("http://host/a@b"), "http://host/a@b");
    }

    #[test]
    fn what_a_server_says_cannot_move_the_cursor() {
        assert_eq!(shown("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert!(shown(&"x".repeat(10_000)).chars().count() <= 201);
    }

    #[test]
    fn fet_23_a_message_names_each_address_and_says_what_to_do() {
        let failure = |url: &str, fault, times| Failure { url: url.to_owned(), fault, times };
        let error = FetchError {
            failures: vec![
                failure("http://a/x", Fault::Status { status: 404, retry_after: None }, 1),
                failure("http://b/x", Fault::Silent(Duration::from_secs(60)), 3),
            ],
            received: 5,
        };
        assert_eq!(
            error.to_string(),
            "http://a/x answered 404: is the address right?; http://b/x sent nothing for 60 s (3 times); 5 bytes had come: \
             try again, or name another mirror with --mirror"
        );
        assert_eq!(error.cause(), "http-silent");
    }
}
