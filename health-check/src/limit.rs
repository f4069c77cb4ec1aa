//! Work that may hang, done aside: whoever waits for it goes on when its time is over (HLT-42).

use std::io::{Error, ErrorKind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Does the work in a thread of its own, and waits no longer than `limit`. A thread that hangs is left behind, and ends with the program.
/// With no time at all it is not begun.
pub fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    if limit.is_zero() {
        return Err(Error::new(ErrorKind::TimedOut, "not begun: there was no time left"));
    }
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("limited".to_owned()).spawn(move || {
        // Nobody listens any more once the time is over.
        let _ = sender.send(work());
    })?;
    receiver.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => {
            Error::new(ErrorKind::TimedOut, format!("not done within {} ms, and not waited for", limit.as_millis()))
        }
        RecvTimeoutError::Disconnected => Error::other("the thread that does it has crashed"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_is_done_in_time_is_handed_over() {
        assert_eq!(within(Duration::from_secs(60), || 7).unwrap(), 7);
    }

    #[test]
    fn without_time_nothing_is_begun_hlt_42() {
        let error = within(Duration::ZERO, || panic!("begun")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn what_hangs_is_left_behind_hlt_42() {
        let begin = Instant::now();
        let error = within(Duration::from_millis(100), || thread::sleep(Duration::from_secs(3600))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
