//! An image over HTTP: its head, then the wanted spans in order, and any span once more (FET-20 to FET-28).

use std::io::{self, Read};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use image_format::{Again, Chunk, ChunkSource, Digest, Passage};

use super::answer::Answer;
use super::client::{BadProxy, Settings, client};
use super::engine::{Access, MakeAgent, Shared};
use super::fault::{Fault, FetchError};
use super::head::{Head, failure};
use super::queue::Queue;
use super::ranges::{Span, coalesce, pieces};
use super::told::Told;
use super::wire::read_end;

/// Pieces of which it is remembered who sent them: more than the longest chunk can lie in.
const REMEMBERED: usize = 8;

/// An image at one or more addresses. As a [`Read`] it gives the head, from the file's beginning, and more if it is asked for more; then
/// [`HttpChunks`] gives the rest. Nothing is asked before the first read.
pub struct Http {
    shared: Arc<Shared>,
    head: Option<Head>,
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
        let patience = settings.patience;
        let make = move |proxy| ureq::Agent::new_with_config(client(patience, proxy));
        Self::over(Box::new(make), urls, settings)
    }

    /// As [`Http::new`], over connections of the caller's own kind: for who wants to see what becomes of an answer without a server.
    ///
    /// # Errors
    /// As [`Http::new`].
    pub fn over(make: MakeAgent, urls: Vec<String>, settings: Settings) -> Result<Self, BadProxy> {
        let variable = |name: &str| std::env::var(name).ok();
        let proxies: Result<Vec<_>, _> = urls.iter().map(|url| settings.proxy.choose(url, variable)).collect();
        let shared = Arc::new(Shared::new(make, settings, urls, proxies?));
        let head = Some(Head::new(Arc::clone(&shared)));
        Ok(Http { shared, head, started: false, sent: Vec::new(), waited: Duration::ZERO, judged: 0 })
    }

    /// The head was read. A server that is sending the whole file goes on with it.
    fn end_head(&mut self) {
        let whole = self.head.take().and_then(Head::into_whole);
        let mut state = self.shared.lock();
        if let Some((open, at)) = whole {
            state.mirrors.get(open.access.mirror).whole = true;
            state.adopted = Some((open.access.mirror, open.body, at));
        }
        self.shared.progress(&mut state);
    }

    /// The file has this many bytes, says the authenticated head. A server that has another file is not asked further (FET-24).
    ///
    /// # Errors
    /// All servers have.
    fn expect_length(&mut self, expected: u64) -> Result<(), FetchError> {
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

    /// From now on these spans are wanted, ascending and without overlap, and nothing else.
    fn plan(&mut self, spans: &[Span]) {
        let settings = &self.shared.settings;
        let mut state = self.shared.lock();
        state.plan += 1;
        state.queue = Some(Queue::new(pieces(spans, settings.piece), settings.window));
        drop(state);
        self.sent.clear();
        (self.waited, self.judged) = (Duration::ZERO, self.shared.received());
        if !self.started {
            self.started = true;
            for _ in 0..settings.workers() {
                let shared = Arc::clone(&self.shared);
                std::thread::spawn(move || shared.work());
            }
        }
        self.shared.changed.notify_all();
    }

    /// The server sends the whole file, whatever it is asked for (FET-25).
    fn sends_all(&self) -> bool {
        let mut state = self.shared.lock();
        let current = state.mirrors.current();
        state.mirrors.get(current).whole
    }

    /// Fills `into` with the bytes from `at`, which lie within what is planned and behind what was taken before.
    fn fill(&mut self, mut at: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            if let Some(len) = self.copy(at, into)? {
                into = &mut into[len..];
                at += len as u64;
            }
        }
        Ok(())
    }

    /// What was taken of a chunk are not the signed bytes: finds who has them (FET-28).
    fn replace(&mut self, chunk: usize, span: Span, into: &mut [u8], holds: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
        let overlaps = |part: &Span| part.start < span.end && span.start < part.end;
        let mut senders: Vec<usize> =
            self.sent.iter().filter(|(part, _)| overlaps(part)).map(|(_, who)| *who).collect();
        senders.dedup();
        // One sender, and others to ask: it is not asked again. Else bytes may have been lost on the way, or two versions were mixed:
        // the chunk is fetched once more, all of it from one.
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

    /// Does the file end behind its last chunk? Where its length was told, that was compared with the head already.
    fn at_end(&mut self) -> io::Result<bool> {
        let stall = self.shared.settings.patience.stall;
        let all = self.sends_all();
        let mut state = self.shared.lock();
        if !all || state.length_told {
            return Ok(true);
        }
        loop {
            if let Some(follows) = state.trailing {
                return Ok(!follows);
            }
            let (next, wait) = self.shared.changed.wait_timeout(state, stall).unwrap_or_else(PoisonError::into_inner);
            if wait.timed_out() {
                return Err(io::Error::other("the server does not end the file"));
            }
            state = next;
        }
    }

    /// What stays to be asked when the chunks are gone: bytes that came, and what went wrong.
    pub fn told(&self) -> Told {
        Told::of(Arc::clone(&self.shared))
    }

    /// Waits until the piece that the reader is at has come, and copies from `at` on. `None`: `at` lies behind it.
    fn copy(&mut self, at: u64, into: &mut [u8]) -> io::Result<Option<usize>> {
        let stall = self.shared.settings.patience.stall;
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if state.failed || state.closing {
                return Err(failure(state.error.take()));
            }
            let Some(queue) = &mut state.queue else { return Err(unplanned(at)) };
            let piece = queue.piece().ok_or_else(|| unplanned(at))?;
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
            // What we wait for before we ask again, or for an answer to begin, is not the body's slowness.
            let pause = state.not_before.saturating_duration_since(Instant::now());
            let (began, waits) = (Instant::now(), pause.is_zero() && shared.waits_for_body());
            let look_again = if pause.is_zero() { stall / 8 } else { pause };
            state = shared.changed.wait_timeout(state, look_again).unwrap_or_else(PoisonError::into_inner).0;
            if waits && shared.waits_for_body() {
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

/// The chunks of an image over HTTP, once its head is authenticated.
#[derive(Debug)]
pub struct HttpChunks {
    http: Http,
    data_start: u64,
    file_len: u64,
    planned: bool,
}

impl HttpChunks {
    /// The chunks stand from `data_start` to `file_len`, says the authenticated head. Refuses servers that have a file of another length
    /// (FET-24).
    ///
    /// # Errors
    /// No server is left; with the [`FetchError`] inside.
    pub fn new(mut http: Http, data_start: u64, file_len: u64) -> io::Result<Self> {
        http.end_head();
        http.expect_length(file_len).map_err(io::Error::other)?;
        Ok(HttpChunks { http, data_start, file_len, planned: false })
    }

    fn span(&self, chunk: &Chunk) -> Span {
        Span::new(self.data_start + chunk.encoded_offset, u64::from(chunk.encoded_len))
    }
}

impl ChunkSource for HttpChunks {
    fn plan(&mut self, chunks: &[Chunk], wanted: &[usize]) -> io::Result<Passage> {
        self.planned = true;
        if self.http.sends_all() {
            self.http.plan(&[Span { start: self.data_start, end: self.file_len }]);
            return Ok(Passage::Everything);
        }
        let spans: Vec<Span> =
            wanted.iter().filter_map(|number| chunks.get(*number)).map(|chunk| self.span(chunk)).collect();
        self.http.plan(&coalesce(&spans));
        Ok(Passage::Wanted)
    }

    fn next(&mut self, _: usize, chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        if !self.planned {
            self.planned = true;
            self.http.plan(&[Span { start: self.data_start, end: self.file_len }]);
        }
        self.http.fill(self.span(chunk).start, into)
    }

    fn again(&mut self, number: usize, chunk: &Chunk, into: &mut [u8], why: Again) -> io::Result<()> {
        let span = self.span(chunk);
        match why {
            Again::Missing => self.http.fetch(span, into).map(|_| ()),
            Again::Damaged => self.http.replace(number, span, into, &|bytes| Digest::of(bytes) == chunk.encoded_sha256),
        }
    }

    fn at_end(&mut self) -> io::Result<bool> {
        self.http.at_end()
    }
}

impl Read for Http {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.head.as_mut().map_or(Ok(0), |head| head.read(into))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.shared.close();
    }
}
