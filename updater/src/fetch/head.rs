//! The head of an image over HTTP: by ranges, or off the front of the whole file (FET-20).

use std::io::{self, Read};
use std::sync::Arc;

use super::answer::Answer;
use super::engine::{Access, Shared};
use super::fault::Fault;
use super::ranges::Span;
use super::wire::{Body, head_end};

/// Asked for before anything is known: manifest, signatures and transport record of any image that is not out of the ordinary.
const FIRST: u64 = 32 * 1024;
/// Asked for next, where even the first bytes do not show how long the head is.
const STEP: u64 = 256 * 1024;
/// The longest head there is has less than 18 MiB (IMG-2).
const LONGEST: u64 = 18 << 20;
/// Read at a time.
const BLOCK: usize = 16 * 1024;

/// The head as a stream. All of it comes from one server, and nothing is handed out before all of it is there: nothing of it is
/// authentic yet, and two versions must not be mixed. So who takes over from another begins anew, and whatever that one sent, or said
/// of the file, is forgotten.
pub(super) struct Head {
    shared: Arc<Shared>,
    bytes: Vec<u8>,
    /// The mirror that sent them.
    from: usize,
    /// A whole file that is being sent; it has come as far as `bytes` do.
    open: Option<Open>,
    complete: bool,
    /// Of `bytes`, and before them.
    handed_out: usize,
    gone: u64,
    /// How far any server came.
    farthest: u64,
}

/// An answer with the whole file that is being read.
pub(super) struct Open {
    pub(super) access: Access,
    pub(super) body: Body,
    total: Option<u64>,
}

/// What went wrong, and with whom.
type Failed = Box<(Access, Fault)>;

impl Head {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Head { shared, bytes: Vec::new(), from: 0, open: None, complete: false, handed_out: 0, gone: 0, farthest: 0 }
    }

    /// The whole file that is being sent, and how far it was read.
    pub(super) fn into_whole(self) -> Option<(Open, u64)> {
        let at = self.at();
        self.open.map(|open| (open, at))
    }

    /// The mirror that sent what was handed out.
    pub(super) fn sender(&self) -> usize {
        self.from
    }

    fn at(&self) -> u64 {
        self.gone + self.bytes.len() as u64
    }

    /// Fetches until the head is there, or something behind it.
    fn fetch(&mut self) -> io::Result<()> {
        while !self.complete {
            let mut access = self.shared.turn()?;
            // From another server, or once more from the beginning of a file that cannot be asked for its rest.
            if access.mirror != self.from || (self.at() == 0 && self.open.is_none()) {
                if self.gone > 0 {
                    return Err(io::Error::other("the server failed behind the head"));
                }
                (self.from, self.open) = (access.mirror, None);
                self.bytes.clear();
                (self.shared.lock().known, access.known) = (None, None);
            }
            match self.step(access) {
                Ok(()) => {
                    self.complete |= self.gone > 0 && !self.bytes.is_empty();
                    if self.at() > self.farthest {
                        self.farthest = self.at();
                        self.shared.progress(&mut self.shared.lock());
                    }
                }
                Err(failed) => {
                    if self.open.take().is_some() {
                        self.bytes.clear();
                    }
                    let (access, fault) = *failed;
                    let mut state = self.shared.lock();
                    self.shared.charge(&mut state, &access, fault);
                    // The head was handed out: it cannot begin anew.
                    if self.gone > 0 && state.error.is_none() {
                        state.error = Some(state.mirrors.error(self.shared.received()));
                    }
                }
            }
        }
        Ok(())
    }

    /// How far to read next; `None` at the end of the head, or of the file. By ranges more than is certain to be wanted, to ask less
    /// often; a stream must not be read past the end of the head.
    fn next(&self, known: Option<u64>) -> Option<u64> {
        let at = self.at();
        let end = match head_end(&self.bytes) {
            _ if self.gone > 0 => at + STEP,
            Ok(end) => end.min(LONGEST),
            Err(least) if self.open.is_some() => least.min(LONGEST),
            Err(_) if at == 0 => FIRST,
            Err(least) => least.max(at + STEP).min(LONGEST),
        };
        Some(end.min(known.unwrap_or(u64::MAX))).filter(|end| *end > at)
    }

    /// One answer more, or a frame more of the whole file.
    fn step(&mut self, access: Access) -> Result<(), Failed> {
        let known = self.shared.lock().known;
        let Some(end) = self.next(known) else {
            self.complete = true;
            return Ok(());
        };
        if let Some(mut open) = self.open.take() {
            let read = self.read_to(end, &open.access, &mut open.body);
            let (access, total) = (open.access.clone(), open.total);
            self.open = Some(open);
            return match read {
                Ok(true) => Ok(()),
                // It does not say how long the file is: it ends here.
                Ok(false) if total.is_none_or(|total| self.at() >= total) => {
                    self.complete = true;
                    Ok(())
                }
                Ok(false) => Err(Box::new((access, Fault::EndedEarly))),
                Err(fault) => Err(Box::new((access, fault))),
            };
        }
        self.ask(access, Span { start: self.at(), end })
    }

    fn ask(&mut self, mut access: Access, span: Span) -> Result<(), Failed> {
        let mut reply = self.shared.ask(&access, Some(span));
        if span.start > 0 && matches!(&reply, Ok(reply) if matches!(reply.answer, Answer::Whole { .. })) {
            // As in the middle of the data: another mark alone says nothing.
            access = self.shared.without_mark(&access);
            reply = self.shared.ask(&access, Some(span));
        }
        let fault = |fault| Box::new((access.clone(), fault));
        let mut reply = reply.map_err(fault)?;
        let total = reply.answer.total();
        {
            let mut state = self.shared.lock();
            state.known = state.known.or(total);
        }
        match reply.answer {
            Answer::Part { span, .. } => {
                let read = self.read_to(span.end, &access, &mut reply.body);
                let whole = read.and_then(|whole| self.shared.read_end(&access, &mut reply.body).map(|()| whole));
                if whole.map_err(fault)? && !reply.short { Ok(()) } else { Err(fault(Fault::EndedEarly)) }
            }
            Answer::Whole { .. } if span.start > 0 => Err(fault(Fault::WrongRange("the whole file".to_owned()))),
            Answer::Whole { total } => {
                self.open = Some(Open { access, body: reply.body, total });
                Ok(())
            }
        }
    }

    /// False: it ended before.
    fn read_to(&mut self, end: u64, access: &Access, body: &mut Body) -> Result<bool, Fault> {
        let mut block = vec![0; BLOCK];
        while self.at() < end {
            let most = usize::try_from(end - self.at()).map_or(BLOCK, |left| left.min(BLOCK));
            match self.shared.read(access, body, &mut block[..most])? {
                0 => return Ok(false),
                came => self.bytes.extend_from_slice(&block[..came]),
            }
        }
        Ok(true)
    }
}

impl Read for Head {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        if self.complete && self.handed_out == self.bytes.len() {
            // Somebody wants to see what follows.
            self.gone = self.at();
            self.bytes.clear();
            (self.handed_out, self.complete) = (0, false);
        }
        self.fetch()?;
        let left = &self.bytes[self.handed_out..];
        let len = left.len().min(into.len());
        into[..len].copy_from_slice(&left[..len]);
        self.handed_out += len;
        Ok(len)
    }
}
