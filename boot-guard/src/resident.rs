//! The process that waits for the deadline of a trial (`GRD-20` to `GRD-22`).

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

/// Longer than any question, so that nobody can make the guard read for ever.
const QUESTION_MAX: usize = 16;
/// What one connection may take (`GRD-22`).
const CONNECTION: Duration = Duration::from_secs(1);
/// At the deadline: what those who came before it may take together.
const LAST_CALL: Duration = Duration::from_secs(5);
/// `poll` does not count the time in which the machine sleeps; the deadline does.
const NAP: Duration = Duration::from_secs(5);

/// What is watched.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// From the start of the kernel.
    pub deadline: Duration,
    /// Another whole entry boots.
    pub another: bool,
    /// Who is answered: 0, but in tests.
    pub user: u32,
}

/// Time since the kernel started, sleep included.
pub trait Clock: Debug {
    /// Now.
    fn now(&self) -> Duration;
}

/// How a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was a verdict.
    Disarmed,
    /// The deadline passed.
    Deadline,
}

/// Answers on `listener` until a verdict comes or the deadline passes. Whoever is in the queue then is served first: a
/// verdict that came in time must win. A client that fails or hangs changes nothing.
///
/// # Errors
/// When the listener cannot be waited for: the caller then waits without one.
pub fn watch(listener: &UnixListener, watch: &Watch, clock: &dyn Clock) -> io::Result<Outcome> {
    listener.set_nonblocking(true)?;
    let mut past: Option<Instant> = None;
    loop {
        let left = watch.deadline.saturating_sub(clock.now());
        let mut nap = left.min(NAP) + Duration::from_millis(1);
        if left.is_zero() {
            nap = Duration::ZERO;
            if past.get_or_insert_with(Instant::now).elapsed() >= LAST_CALL {
                return Ok(Outcome::Deadline);
            }
        }
        let timeout = PollTimeout::try_from(nap).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return Ok(Outcome::Deadline),
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Whoever it was may be gone again.
        let Ok((stream, _)) = listener.accept() else { continue };
        if serve(&stream, watch, left).unwrap_or(false) {
            return Ok(Outcome::Disarmed);
        }
    }
}

/// True when the question was a verdict, whether or not its sender still takes the answer.
fn serve(stream: &UnixStream, watch: &Watch, left: Duration) -> io::Result<bool> {
    if getsockopt(stream, PeerCredentials)?.uid() != watch.user {
        return Ok(false);
    }
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(CONNECTION))?;
    let question = question(stream)?;
    let mut answer = stream;
    match question.as_slice() {
        b"disarm\n" => {
            let _ = answer.write_all(b"disarmed\n");
            Ok(true)
        }
        b"status\n" => {
            let another = if watch.another { "yes" } else { "no" };
            answer.write_all(format!("armed {} another={another}\n", left.as_secs()).as_bytes())?;
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// The first line, or what came of it in time.
fn question(mut stream: &UnixStream) -> io::Result<Vec<u8>> {
    let began = Instant::now();
    let mut question = Vec::new();
    let mut piece = [0; QUESTION_MAX];
    while !question.contains(&b'\n') && question.len() < QUESTION_MAX {
        let Some(left) = CONNECTION.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else { break };
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => break,
            got => question.extend_from_slice(&piece[..got]),
        }
    }
    Ok(question)
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    use std::thread;

    use super::*;
    use crate::client::{ClientError, Disarmed, GuardClient, Status};

    #[derive(Debug)]
    struct Since(Instant);

    impl Clock for Since {
        fn now(&self) -> Duration {
            self.0.elapsed()
        }
    }

    fn start(test: &str, deadline_ms: u64, user: u32) -> (GuardClient, thread::JoinHandle<Outcome>, String) {
        let name = format!("ralphos-guard-{test}-{}", std::process::id());
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let watched = Watch { deadline: Duration::from_millis(deadline_ms), another: true, user };
        let clock = Since(Instant::now());
        let thread = thread::spawn(move || watch(&listener, &watched, &clock).unwrap());
        (GuardClient::named(&name), thread, name)
    }

    fn me() -> u32 {
        nix::unistd::Uid::current().as_raw()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn grd22_a_verdict_disarms_and_ends_the_process() {
        let (client, thread, _) = start("verdict", 60_000, me());
        let Some(Status { left, another: true }) = client.status(SECOND).unwrap() else { panic!("not armed") };
        assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60), "{left:?}");
        assert_eq!(client.disarm(SECOND).unwrap(), Disarmed::Disarmed);
        assert_eq!(thread.join().unwrap(), Outcome::Disarmed);
        assert_eq!(client.disarm(SECOND).unwrap(), Disarmed::NotArmed);
    }

    #[test]
    fn grd22_another_user_gets_nothing_and_the_deadline_passes() {
        let (client, thread, _) = start("user", 700, me() + 1);
        for _ in 0..3 {
            assert!(matches!(client.disarm(SECOND), Err(ClientError::Answer(_) | ClientError::Io(_))));
        }
        assert_eq!(thread.join().unwrap(), Outcome::Deadline);
    }

    #[test]
    fn grd21_at_the_deadline_those_in_the_queue_are_served_first() {
        let name = format!("ralphos-guard-queue-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let watched = Watch { deadline: Duration::ZERO, another: true, user: me() };
        let clock = Since(Instant::now());
        assert_eq!(watch(&listener, &watched, &clock).unwrap(), Outcome::Deadline, "nobody is there");
        // The deadline passed while these waited for an answer, the one behind a client that says nothing.
        let _silent = UnixStream::connect_addr(&address).unwrap();
        let mut verdict = UnixStream::connect_addr(&address).unwrap();
        verdict.write_all(b"disarm\n").unwrap();
        assert_eq!(watch(&listener, &watched, &clock).unwrap(), Outcome::Disarmed);
        // More clients that say nothing than there is time for.
        let _silent: Vec<_> = (0..20).map(|_| UnixStream::connect_addr(&address).unwrap()).collect();
        let began = Instant::now();
        assert_eq!(watch(&listener, &watched, &clock).unwrap(), Outcome::Deadline);
        assert!(began.elapsed() < LAST_CALL + 2 * CONNECTION);
    }

    #[test]
    fn grd22_a_client_that_hangs_or_babbles_does_not_hold_up_the_deadline() {
        let (client, thread, name) = start("hang", 1500, me());
        let began = Instant::now();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _silent = UnixStream::connect_addr(&address).unwrap();
        let mut babbling = UnixStream::connect_addr(&address).unwrap();
        babbling.write_all(b"disarm disarm disarm disarm\n").unwrap();
        let mut half = UnixStream::connect_addr(&address).unwrap();
        half.write_all(b"disarm").unwrap();
        drop(half);
        assert!(client.status(3 * SECOND).unwrap().is_some(), "the next one is served");
        assert_eq!(thread.join().unwrap(), Outcome::Deadline);
        assert!(began.elapsed() < 4 * SECOND, "{:?}", began.elapsed());
    }
}
