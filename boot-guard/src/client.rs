//! Speaking to the process that watches the deadline of a trial (`GRD-22`).

use std::io::{self, BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The abstract name of the socket. It belongs to the network namespace of the initrd: a program in another one finds nobody.
pub const SOCKET: &str = "ralphos-guard";

/// Asks the guard. Only user 0 is answered.
#[derive(Debug, Clone)]
pub struct GuardClient {
    name: String,
}

/// What became of [`GuardClient::disarm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disarmed {
    /// It watched, and does not any more.
    Disarmed,
    /// Nobody watches: a committed boot, an initrd without the guard, or it was disarmed before.
    NotArmed,
}

/// What the guard says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Until the deadline.
    pub left: Duration,
    /// The machine is restarted then; otherwise nothing happens.
    pub another: bool,
}

/// The guard did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No answer in time.
    #[error("the boot guard gave no answer within {0:?}")]
    Timeout(Duration),
    /// The connection failed.
    #[error("cannot speak to the boot guard")]
    Io(#[source] io::Error),
    /// An answer that is none, or an empty one: it answers user 0 only.
    #[error("the boot guard answered {0:?} (it answers user 0 only)")]
    Answer(String),
}

impl Default for GuardClient {
    fn default() -> GuardClient {
        GuardClient::named(SOCKET)
    }
}

impl GuardClient {
    /// That of this machine.
    pub fn new() -> GuardClient {
        GuardClient::default()
    }

    /// One that listens under another abstract name, for tests.
    pub fn named(name: &str) -> GuardClient {
        GuardClient { name: name.to_owned() }
    }

    /// Ends the watch: a verdict was reached.
    ///
    /// # Errors
    /// [`ClientError`]; then the machine may be restarted at the deadline all the same.
    pub fn disarm(&self, timeout: Duration) -> Result<Disarmed, ClientError> {
        match self.ask("disarm", timeout)?.as_deref() {
            None => Ok(Disarmed::NotArmed),
            Some("disarmed") => Ok(Disarmed::Disarmed),
            Some(other) => Err(ClientError::Answer(other.to_owned())),
        }
    }

    /// How long the watch lasts; None when nobody watches.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn status(&self, timeout: Duration) -> Result<Option<Status>, ClientError> {
        let Some(answer) = self.ask("status", timeout)? else { return Ok(None) };
        match parse_status(&answer) {
            Some(status) => Ok(Some(status)),
            None => Err(ClientError::Answer(answer)),
        }
    }

    /// The answer's line; None when nobody listens.
    fn ask(&self, question: &'static str, timeout: Duration) -> Result<Option<String>, ClientError> {
        let (sender, receiver) = mpsc::channel();
        let name = self.name.clone();
        // In a thread: connecting cannot be given a time limit.
        let thread = thread::Builder::new().name("boot-guard".into()).spawn(move || {
            // Nobody waits any more when this fails.
            let _ = sender.send(exchange(&name, question, timeout));
        });
        thread.map_err(ClientError::Io)?;
        match receiver.recv_timeout(timeout) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(ClientError::Timeout(timeout))
            }
            Ok(Err(error)) => Err(ClientError::Io(error)),
            Err(_) => Err(ClientError::Timeout(timeout)),
        }
    }
}

fn exchange(name: &str, question: &str, timeout: Duration) -> io::Result<Option<String>> {
    let stream = match UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    (&stream).write_all(format!("{question}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    Ok(Some(answer.trim_end_matches('\n').to_owned()))
}

fn parse_status(answer: &str) -> Option<Status> {
    let (left, another) = answer.strip_prefix("armed ")?.split_once(" another=")?;
    let another = match another {
        "yes" => true,
        "no" => false,
        _ => return None,
    };
    Some(Status { left: Duration::from_secs(left.parse().ok()?), another })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn grd22_nobody_there_is_no_error_and_nobody_answering_is_one() {
        let name = format!("ralphos-guard-client-{}", std::process::id());
        let client = GuardClient::named(&name);
        let timeout = Duration::from_millis(200);
        assert_eq!(client.disarm(timeout).unwrap(), Disarmed::NotArmed);
        assert_eq!(client.status(timeout).unwrap(), None);
        let _silent = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        assert!(matches!(client.disarm(timeout), Err(ClientError::Timeout(_))));
    }

    #[test]
    fn grd22_the_answer_to_status() {
        let left = Duration::from_secs(12);
        assert_eq!(parse_status("armed 12 another=yes"), Some(Status { left, another: true }));
        assert_eq!(parse_status("armed 12 another=no"), Some(Status { left, another: false }));
        for text in ["", "armed", "armed x another=yes", "armed 12 another=", "armed 12", "disarmed"] {
            assert_eq!(parse_status(text), None);
        }
    }
}
