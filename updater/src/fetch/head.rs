//! The head of an image over HTTP: by ranges, or off the front of the whole file (FET-20).

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::answer::Answer;
use super::engine::{Access, Shared};
use super::fault::{Fault, FetchError};
use super::ranges::Span;
use super::wire::{Body, head_end, read_end};

/// Asked for before anything is known: manifest, signatures and transport record of any image that is not out of the ordinary.
const FIRST: u64 = 32 * 1024;
/// Asked for next, where even the first bytes do not show how long the head is.
const STEP: u64 = 256 * 1024;

/// The head as a stream: bytes from the file's beginning, from whichever server has them. Who takes over from another must have sent the
/// same bytes so far: nothing of them is authentic yet, and two versions must not be mixed.
pub(super) struct Head {
    shared: Arc<Shared>,
    open: Option<Open>,
    at: u64,
    /// The first bytes, to see from them how long the head is.
    first: Vec<u8>,
    /// Of all that was handed out.
    digest: Sha256,
    /// Somebody else takes over.
    catch_up: bool,
    /// Found when bytes had come that are handed out first.
    failed: Option<Failed>,
    /// Waited for the server, and what had come by then, since the last judgement.
    waited: Duration,
    judged: u64,
}

/// What went wrong, and with whom.
type Failed = Box<(Access, Fault)>;

/// An answer that is being read.
pub(super) struct Open {
    pub(super) access: Access,
    pub(super) body: Body,
    /// Where it ends; `None`: the whole file.
    part: Option<u64>,
    total: Option<u64>,
}

impl Head {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Head {
            shared,
            open: None,
            at: 0,
            first: Vec::new(),
            digest: Sha256::new(),
            catch_up: false,
            failed: None,
            waited: Duration::ZERO,
            judged: 0,
        }
    }

    /// The whole file that is being sent, and how far it was read.
    pub(super) fn into_whole(self) -> Option<(Open, u64)> {
        let at = self.at;
        self.open.filter(|open| open.part.is_none()).map(|open| (open, at))
    }

    /// What came so far comes once more, from a server that takes over; it must be the same.
    fn repeat(&mut self) -> Result<(), Failed> {
        let access = {
            let mut state = self.shared.lock();
            self.shared.access(&mut state)
        };
        let fault = |fault| Box::new((access.clone(), fault));
        let reply = self.shared.ask(&access, Some(Span { start: 0, end: self.at })).map_err(fault)?;
        let (mut body, mut left, mut digest) = (reply.body, self.at, Sha256::new());
        let mut block = vec![0; 16 * 1024];
        while left > 0 {
            let most = usize::try_from(left).map_or(block.len(), |left| left.min(block.len()));
            let began = Instant::now();
            let read = self.shared.read(&mut body, &mut block[..most]);
            self.waited += began.elapsed();
            match read.map_err(fault)? {
                0 => return Err(fault(Fault::EndedEarly)),
                came => {
                    digest.update(&block[..came]);
                    left -= came as u64;
                }
            }
            if let Some(waited) = self.trickled() {
                return Err(fault(Fault::Trickle { least: self.shared.least(), waited }));
            }
        }
        if digest.finalize() != self.digest.clone().finalize() {
            return Err(fault(Fault::OtherHead));
        }
        self.catch_up = false;
        match reply.answer {
            Answer::Part { .. } => read_end(&mut body, self.shared.settings.patience.stall).map_err(fault)?,
            Answer::Whole { total } => self.open = Some(Open { access, body, part: None, total }),
        }
        Ok(())
    }

    /// What to ask for next; `None` at the end of the file.
    fn next_span(&self, known: Option<u64>) -> Option<Span> {
        let end = match self.at {
            0 => FIRST,
            at => head_end(&self.first).filter(|end| *end > at).unwrap_or(at + STEP),
        };
        // The longest head there is has less than 18 MiB (IMG-2).
        let end = end.min(self.at + (18 << 20)).min(known.unwrap_or(u64::MAX));
        (end > self.at).then_some(Span { start: self.at, end })
    }

    fn ask(&mut self) -> Result<Option<Open>, Failed> {
        let (mut access, known) = {
            let mut state = self.shared.lock();
            (self.shared.access(&mut state), state.known)
        };
        let Some(span) = self.next_span(known) else { return Ok(None) };
        let mut reply = self.shared.ask(&access, Some(span));
        if self.at > 0 && matches!(&reply, Ok(reply) if matches!(reply.answer, Answer::Whole { .. })) {
            // As in the middle of the data: another mark alone says nothing.
            let mut state = self.shared.lock();
            state.mirrors.get(access.mirror).etag = None;
            access = self.shared.access(&mut state);
            drop(state);
            reply = self.shared.ask(&access, Some(span));
        }
        let reply = match reply {
            Ok(reply) => reply,
            Err(fault) => return Err(Box::new((access, fault))),
        };
        let (part, total) = match reply.answer {
            Answer::Part { span, total } => (Some(span.end), total),
            Answer::Whole { .. } if self.at > 0 => {
                return Err(Box::new((access, Fault::WrongRange("the whole file".to_owned()))));
            }
            Answer::Whole { total } => (None, total),
        };
        let mut state = self.shared.lock();
        state.known = state.known.or(total);
        drop(state);
        Ok(Some(Open { access, body: reply.body, part, total }))
    }

    fn read_open(&mut self, into: &mut [u8]) -> Result<usize, Failed> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        if self.catch_up {
            self.repeat()?;
        }
        if self.open.is_none() {
            self.open = self.ask()?;
        }
        let Some(open) = &mut self.open else { return Ok(0) };
        let most =
            open.part.map_or(into.len(), |end| usize::try_from(end - self.at).unwrap_or(into.len()).min(into.len()));
        let began = Instant::now();
        let read = self.shared.read(&mut open.body, &mut into[..most]);
        self.waited += began.elapsed();
        let fault = |fault| Box::new((open.access.clone(), fault));
        let read = read.map_err(fault)?;
        if read == 0 && (open.part.is_some() || open.total.is_some_and(|total| self.at < total)) {
            return Err(fault(Fault::EndedEarly));
        }
        self.at += read as u64;
        self.digest.update(&into[..read]);
        if self.first.len() < FIRST as usize {
            self.first.extend_from_slice(&into[..read]);
        }
        let access = open.access.clone();
        if let Some(waited) = self.trickled() {
            let fault = Fault::Trickle { least: self.shared.least(), waited };
            self.failed = Some(Box::new((access, fault)));
        } else if self.open.as_ref().is_some_and(|open| open.part == Some(self.at)) {
            let stall = self.shared.settings.patience.stall;
            if let Some(mut open) = self.open.take() {
                let end = read_end(&mut open.body, stall);
                self.failed = end.err().map(|fault| Box::new((access, fault)));
            }
        }
        Ok(read)
    }

    /// Each time we have waited for as long as a server may keep us: how long, if too little came in it (THR-9).
    fn trickled(&mut self) -> Option<Duration> {
        if self.waited < self.shared.settings.patience.stall {
            return None;
        }
        let came = self.shared.received() - self.judged;
        self.judged = self.shared.received();
        let waited = std::mem::take(&mut self.waited);
        (came < self.shared.least()).then_some(waited)
    }

    /// Judges a fault, and waits if it is worth another try.
    fn recover(&mut self, access: &Access, fault: Fault) -> io::Result<()> {
        let hang_up = matches!(fault, Fault::Trickle { .. });
        let ranged = self.open.take().is_none_or(|open| open.part.is_some());
        let mut state = self.shared.lock();
        if hang_up {
            self.shared.hang_up(&mut state, access.mirror);
        }
        let retry = self.shared.settings.opening;
        if !self.shared.charge(&mut state, access, fault, &retry) {
            return Err(failure(state.error.take()));
        }
        let same = state.mirrors.current() == access.mirror;
        let wait = state.not_before.saturating_duration_since(Instant::now());
        drop(state);
        std::thread::sleep(wait);
        self.catch_up |= self.at > 0 && !(same && ranged);
        if self.at == 0 {
            self.shared.lock().known = None;
        }
        (self.waited, self.judged) = (Duration::ZERO, self.shared.received());
        Ok(())
    }
}

impl Read for Head {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            match self.read_open(into) {
                Ok(read) => return Ok(read),
                Err(failed) => {
                    let (access, fault) = *failed;
                    self.recover(&access, fault)?;
                }
            }
        }
    }
}

/// `other` and not `UnexpectedEof`: readers of images would call that a truncated file and drop the message.
pub(super) fn failure(error: Option<FetchError>) -> io::Error {
    match error {
        Some(error) => io::Error::other(error),
        None => io::Error::other("fetching has failed before"),
    }
}
