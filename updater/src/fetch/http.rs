//! An image over HTTP: its head, then the wanted spans in order, and any span once more (FET-20 to FET-28).

use std::io::{self, Read};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::client::{BadProxy, Settings};
use super::engine::{Access, Shared};
use super::fault::{Fault, FetchError};
use super::head::{HeadStream, failure};
use super::queue::Queue;
use super::ranges::{Span, coalesce, pieces};
use super::wire::read_end;
use super::Fetch;

/// Pieces of which it is remembered who sent them: more than the longest chunk can lie in.
const REMEMBERED: usize = 8;

/// An image at one or more addresses. Nothing is asked before [`Http::read_head`].
pub struct Http {
    shared: Arc<Shared>,
    started: bool,
    /// Which mirror sent what the reader has last taken.
    sent: Vec<(Span, usize)>,
    waited: Duration,
    judged: u64,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("received", &self.shared.received()).finish_non_exhaustive()
    }
}

impl Http {
    /// The image at the first of these addresses, or at the next where that fails.
    ///
    /// # Errors
    /// A proxy is named that cannot be used.
    pub fn new(urls: Vec<String>, settings: Settings) -> Result<Self, BadProxy> {
        let variable = |name: &str| std::env::var(name).ok();
        let proxies: Result<Vec<_>, _> = urls.iter().map(|url| settings.proxy.choose(url, variable)).collect();
        let shared = Arc::new(Shared::new(settings, urls, proxies?));
        Ok(Http { shared, started: false, sent: Vec::new(), waited: Duration::ZERO, judged: 0 })
    }

    /// Has `parse` read the head, from the file's beginning on and not further. It may be called more than once: when a server
    /// breaks off the head is read again, if need be from the next one.
    ///
    /// # Errors
    /// Those of `parse`; that of the network stands in the [`io::Error`] it met.
    pub fn read_head<T, E>(&mut self, mut parse: impl FnMut(&mut dyn Read) -> Result<T, E>) -> Result<T, E> {
        loop {
            let mut stream = HeadStream::new(&self.shared);
            let parsed = parse(&mut stream);
            if parsed.is_err() && stream.again {
                continue;
            }
            let whole = stream.into_whole();
            let mut state = self.shared.lock();
            if let Some((open, at)) = whole {
                state.mirrors.get(open.access.mirror).whole = true;
                state.adopted = Some((open.access.mirror, open.body, at));
            }
            self.shared.progress(&mut state);
            return parsed;
        }
    }

    /// The file has this many bytes, says the authenticated head. A server that has another file is not asked further (FET-24).
    ///
    /// # Errors
    /// All servers have.
    pub fn expect_length(&mut self, expected: u64) -> Result<(), FetchError> {
        let mut state = self.shared.lock();
        let found = state.known.replace(expected);
        state.length_told = found.is_some();
        let Some(found) = found.filter(|found| *found != expected) else { return Ok(()) };
        let access = self.shared.access(&mut state);
        state.adopted = None;
        let retry = self.shared.settings.fetching;
        if self.shared.charge(&mut state, &access, Fault::OtherFile { found, expected }, &retry) {
            return Ok(());
        }
        let received = self.shared.received();
        Err(state.error.take().unwrap_or(FetchError { failures: Vec::new(), received }))
    }

    /// Waits until the piece that the reader is at has come, and copies from `at` on. `None`: `at` lies behind it.
    fn copy(&mut self, at: u64, into: &mut [u8]) -> io::Result<Option<usize>> {
        let stall = self.shared.settings.patience.stall;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if state.failed {
                return Err(failure(state.error.take()));
            }
            let Some(queue) = &mut state.queue else { return Err(unplanned(at)) };
            let piece = queue.piece().filter(|piece| piece.start <= at || at < piece.end).ok_or_else(|| unplanned(at))?;
            if piece.end <= at {
                queue.pass();
                shared.changed.notify_all();
                return Ok(None);
            }
            if at < piece.start {
                return Err(unplanned(at));
            }
            if let Some(got) = queue.ready() {
                let from = usize::try_from(at - piece.start).unwrap_or(usize::MAX);
                let len = (got.bytes.len() - from).min(into.len());
                into[..len].copy_from_slice(&got.bytes[from..from + len]);
                let mirror = got.mirror;
                if from + len == got.bytes.len() {
                    queue.pass();
                    shared.changed.notify_all();
                }
                drop(state);
                self.remember(Span::new(at, len as u64), mirror);
                return Ok(Some(len));
            }
            // While everybody waits before asking again no server can send anything.
            let pause = state.not_before.saturating_duration_since(Instant::now());
            let began = Instant::now();
            let wait = if pause.is_zero() { stall.saturating_sub(self.waited).max(Duration::from_millis(1)) } else { pause };
            state = shared.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            if pause.is_zero() {
                self.waited += began.elapsed();
            }
            if let Some(waited) = self.trickled() {
                let access = shared.access(&mut state);
                shared.hang_up(&mut state, access.mirror);
                let (least, retry) = (shared.least(), shared.settings.fetching);
                shared.charge(&mut state, &access, Fault::Trickle { least, waited }, &retry);
            }
        }
    }

    /// As with the head, over all connections: THR-9.
    fn trickled(&mut self) -> Option<Duration> {
        if self.waited < self.shared.settings.patience.stall {
            return None;
        }
        let received = self.shared.received();
        let came = received - self.judged;
        self.judged = received;
        let waited = std::mem::take(&mut self.waited);
        (came < self.shared.least()).then_some(waited)
    }

    fn remember(&mut self, span: Span, mirror: usize) {
        match self.sent.last_mut() {
            Some((last, same)) if last.end == span.start && *same == mirror => last.end = span.end,
            _ => self.sent.push((span, mirror)),
        }
        if self.sent.len() > REMEMBERED {
            self.sent.remove(0);
        }
    }

    /// Fetches a span by itself from the current mirror, with retries; says from whom it came.
    fn fetch(&self, span: Span, into: &mut [u8]) -> io::Result<Access> {
        loop {
            let access = {
                let mut state = self.shared.lock();
                if state.failed {
                    return Err(failure(state.error.take()));
                }
                let pause = state.not_before.saturating_duration_since(Instant::now());
                if !pause.is_zero() {
                    drop(state);
                    std::thread::sleep(pause);
                    continue;
                }
                self.shared.access(&mut state)
            };
            let Err(fault) = self.fetch_once(&access, span, into) else {
                let mut state = self.shared.lock();
                self.shared.progress(&mut state);
                return Ok(access);
            };
            let mut state = self.shared.lock();
            let retry = self.shared.settings.fetching;
            if !self.shared.charge(&mut state, &access, fault, &retry) {
                return Err(failure(state.error.take()));
            }
        }
    }

    fn fetch_once(&self, access: &Access, span: Span, into: &mut [u8]) -> Result<(), Fault> {
        let mut at = 0_u64;
        while at < span.len() {
            let rest = Span { start: span.start + at, end: span.end };
            let mut reply = self.shared.ask(access, Some(rest))?;
            let (mut skip, end) = match reply.answer {
                Answer::Part { span: part, .. } => (0, part.end - span.start),
                Answer::Whole { .. } => (rest.start, span.len()),
            };
            let mut waste = [0; 16 * 1024];
            while skip > 0 {
                let most = usize::try_from(skip).map_or(waste.len(), |skip| skip.min(waste.len()));
                match self.shared.read(&mut reply.body, &mut waste[..most])? {
                    0 => return Err(Fault::EndedEarly),
                    came => skip -= came as u64,
                }
            }
            while at < end {
                match self.shared.read(&mut reply.body, &mut into[at as usize..end as usize])? {
                    0 => return Err(Fault::EndedEarly),
                    came => at += came as u64,
                }
            }
            if matches!(reply.answer, Answer::Part { .. }) {
                read_end(&mut reply.body, self.shared.settings.patience.stall)?;
            }
        }
        Ok(())
    }

    /// These mirrors sent other bytes than the signed ones: they are not asked again, and what else they sent is forgotten.
    fn blame(&self, access: &Access, chunk: usize) -> io::Result<()> {
        let mut state = self.shared.lock();
        let retry = self.shared.settings.fetching;
        if let Some(queue) = &mut state.queue {
            queue.forget(access.mirror);
        }
        if self.shared.charge(&mut state, access, Fault::OtherBytes { chunk }, &retry) {
            return Ok(());
        }
        Err(failure(state.error.take()))
    }
}

fn unplanned(at: u64) -> io::Error {
    io::Error::other(format!("byte {at} of the image was not asked for"))
}

impl Fetch for Http {
    fn plan(&mut self, wanted: &[Span]) {
        let settings = &self.shared.settings;
        let mut state = self.shared.lock();
        let whole = {
            let current = state.mirrors.current();
            state.mirrors.get(current).whole
        };
        // A whole file comes past anyway: gaps cost nothing, and its end is looked at.
        let joined = coalesce(wanted);
        let window = if whole { settings.window.max(2) } else { settings.window };
        state.plan += 1;
        state.queue = Some(Queue::new(pieces(&joined, settings.piece), window));
        self.sent.clear();
        (self.waited, self.judged) = (Duration::ZERO, self.shared.received());
        drop(state);
        if !self.started {
            self.started = true;
            for _ in 0..settings.workers() {
                let shared = Arc::clone(&self.shared);
                std::thread::spawn(move || shared.work());
            }
        }
        self.shared.changed.notify_all();
    }

    fn wants_all(&self) -> bool {
        let mut state = self.shared.lock();
        let current = state.mirrors.current();
        state.mirrors.get(current).whole
    }

    fn read(&mut self, mut at: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            if let Some(len) = self.copy(at, into)? {
                into = &mut into[len..];
                at += len as u64;
            }
        }
        Ok(())
    }

    fn again(&mut self, span: Span, into: &mut [u8]) -> io::Result<()> {
        self.fetch(span, into).map(|_| ())
    }

    fn wrong(&mut self, chunk: usize, span: Span, into: &mut [u8], holds: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
        let mut senders: Vec<usize> =
            self.sent.iter().filter(|(part, _)| part.start < span.end && span.start < part.end).map(|(_, who)| *who).collect();
        senders.dedup();
        // One sender, and others to ask: it is not asked again. Else a byte may have been lost on the way, or two versions were mixed.
        if let [only] = senders[..] {
            let mut state = self.shared.lock();
            let others = state.mirrors.others(only);
            let access = self.shared.access_to(&mut state, only);
            drop(state);
            if others {
                self.blame(&access, chunk)?;
            }
        }
        loop {
            let access = self.fetch(span, into)?;
            if holds(into) {
                return Ok(());
            }
            self.blame(&access, chunk)?;
        }
    }

    fn ends(&mut self) -> io::Result<bool> {
        let mut state = self.shared.lock();
        let current = state.mirrors.current();
        // By its length it was compared with the head already.
        if !state.mirrors.get(current).whole || state.length_told {
            return Ok(true);
        }
        loop {
            if let Some(follows) = state.trailing {
                return Ok(!follows);
            }
            let stall = self.shared.settings.patience.stall;
            let (next, waited) = self.shared.changed.wait_timeout(state, stall).unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return Err(io::Error::other("the server does not end the file"));
            }
            state = next;
        }
    }

    fn received(&self) -> u64 {
        self.shared.received()
    }

    fn notes(&self) -> Vec<String> {
        self.shared.lock().mirrors.notes()
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.shared.close();
    }
}
