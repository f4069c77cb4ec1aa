//! An image over HTTP: its head, then the wanted spans in order, and any span once more (FET-20 to FET-28).

use std::io::{self, Read};
use std::sync::{Arc, PoisonError};
use std::thread;

use image_format::{Again, Chunk, ChunkSource, Digest, Passage};

use super::answer::Answer;
use super::client::{BadProxy, Settings, agent};
use super::engine::{Access, MakeAgent, Shared};
use super::fault::{Fault, FetchError};
use super::head::Head;
use super::queue::Queue;
use super::ranges::{Span, coalesce, pieces};
use super::told::Told;

/// Spans of which it is remembered who sent them: a chunk is looked at long after it was read, when others have been.
const REMEMBERED: usize = 1024;

/// An image at one or more addresses. As a [`Read`] it gives the head, from the file's beginning, and more if it is asked for more; then
/// [`HttpChunks`] gives the rest. Nothing is asked before the first read.
pub struct Http {
    shared: Arc<Shared>,
    head: Option<Head>,
    watched: bool,
    started: bool,
    /// Which mirror sent what the reader has last taken.
    sent: Vec<(Span, usize)>,
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
        let asked = settings.clone();
        let make = move |proxy| agent(&asked, proxy);
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
        Ok(Http { shared, head, watched: false, started: false, sent: Vec::new() })
    }

    /// The head was read. A server that is sending the whole file goes on with it.
    fn end_head(&mut self) {
        let whole = self.head.take().and_then(Head::into_whole);
        let mut state = self.shared.lock();
        state.retry = self.shared.settings.fetching;
        if let Some((open, at)) = whole {
            state.mirrors.get(open.access.mirror).whole = true;
            state.adopted = Some((open.access.mirror, open.body, at));
        }
        self.shared.progress(&mut state);
    }

    /// The head that was read is of no use: who sent it is struck, and the head is read anew from another (FET-28).
    ///
    /// # Errors
    /// Nobody is left. Where more than one was asked, what each of them did.
    pub fn strike_head(&mut self) -> Result<(), Option<FetchError>> {
        let mut state = self.shared.lock();
        if let Some(head) = &self.head
            && state.check().is_ok()
        {
            (state.known, state.adopted) = (None, None);
            self.shared.strike(&mut state, head.sender(), Fault::OtherHead);
            if state.error.is_none() {
                drop(state);
                self.head = Some(Head::new(Arc::clone(&self.shared)));
                return Ok(());
            }
        }
        Err(state.error.clone().filter(|error| error.failures.len() > 1))
    }

    /// The file has this many bytes, says the authenticated head. A server that has another file is not asked further (FET-24).
    ///
    /// # Errors
    /// All servers have.
    fn expect_length(&mut self, expected: u64) -> io::Result<()> {
        let mut state = self.shared.lock();
        let found = state.known.replace(expected);
        state.length_told = found.is_some();
        let Some(found) = found.filter(|found| *found != expected) else { return Ok(()) };
        let access = self.shared.access(&mut state);
        state.adopted = None;
        self.shared.charge(&mut state, &access, Fault::OtherFile { found, expected });
        state.check()
    }

    /// Starts a thread of our own. Where there is none to be had that is an error, and no panic: a slot may be fenced.
    fn start(&self, name: &str, work: fn(&Shared)) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name(name.to_owned()).spawn(move || work(&shared)).map(|_| ())
    }

    /// From now on these spans are wanted, ascending and without overlap, and nothing else.
    ///
    /// # Errors
    /// No thread can be had.
    fn plan(&mut self, spans: &[Span]) -> io::Result<()> {
        let settings = &self.shared.settings;
        let mut state = self.shared.lock();
        state.plan += 1;
        state.queue = Some(Queue::new(pieces(spans, settings.piece), settings.window));
        drop(state);
        self.sent.clear();
        if !self.started {
            self.start("fetch", Shared::work)?;
            self.started = true;
            // One does it; the others make it faster.
            (1..settings.workers()).try_for_each(|_| self.start("fetch", Shared::work)).ok();
        }
        self.shared.changed.notify_all();
        Ok(())
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
        let sent = self.sent.iter().filter(|(part, _)| overlaps(part));
        let known: u64 = sent.clone().map(|(part, _)| part.end.min(span.end) - part.start.max(span.start)).sum();
        let mut senders: Vec<usize> = sent.map(|(_, who)| *who).collect();
        senders.sort_unstable();
        senders.dedup();
        // One sender, and others to ask: it is not asked again. Else bytes may have been lost on the way, or two versions were mixed:
        // the chunk is fetched once more, all of it from one.
        if let [only] = senders[..]
            && known >= span.len()
        {
            let mut state = self.shared.lock();
            let others = !state.mirrors.is_struck(only) && state.mirrors.others(only);
            let access = self.shared.access_to(&mut state, only);
            drop(state);
            if others {
                self.blame(&access, chunk);
            }
        }
        loop {
            let access = self.fetch(span, into)?;
            if holds(into) {
                return Ok(());
            }
            self.blame(&access, chunk);
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
            state.check()?;
            let (next, wait) =
                self.shared.changed.wait_timeout(state, 2 * stall).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if wait.timed_out() && state.trailing.is_none() {
                return Err(io::Error::other("the server does not end the file"));
            }
        }
    }

    /// What stays to be asked when the chunks are gone: bytes that came, and what went wrong.
    pub fn told(&self) -> Told {
        Told::of(Arc::clone(&self.shared))
    }

    /// Waits until the piece that the reader is at has come, and copies from `at` on. `None`: `at` lies behind it.
    fn copy(&mut self, at: u64, into: &mut [u8]) -> io::Result<Option<usize>> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            state.check()?;
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
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
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

    /// Fetches a span by itself from the current mirror, with retries; says from whom it came. What came stays while it is the same one.
    fn fetch(&self, span: Span, into: &mut [u8]) -> io::Result<Access> {
        let (mut at, mut from) = (0, None);
        loop {
            let mut access = self.shared.turn()?;
            if from.replace(access.mirror) != Some(access.mirror) {
                at = 0;
            }
            let fetched = self.fetch_once(&mut access, span, into, &mut at);
            let mut state = self.shared.lock();
            match fetched {
                Ok(()) => {
                    self.shared.progress(&mut state);
                    return Ok(access);
                }
                Err(fault) => self.shared.charge(&mut state, &access, fault),
            }
        }
    }

    fn fetch_once(&self, access: &mut Access, span: Span, into: &mut [u8], at: &mut u64) -> Result<(), Fault> {
        while *at < span.len() {
            let rest = Span { start: span.start + *at, end: span.end };
            let mut reply = self.shared.ask(access, Some(rest))?;
            let end = match reply.answer {
                Answer::Part { span: part, .. } => part.end - span.start,
                // As with a piece: another mark alone says nothing.
                Answer::Whole { .. } if access.if_range.is_some() => {
                    *access = self.shared.without_mark(access);
                    continue;
                }
                Answer::Whole { .. } => {
                    self.shared.skip(access, &mut reply.body, rest.start)?;
                    span.len()
                }
            };
            while *at < end {
                match self.shared.read(access, &mut reply.body, &mut into[*at as usize..end as usize])? {
                    0 => return Err(Fault::EndedEarly),
                    came => *at += came as u64,
                }
            }
            if matches!(reply.answer, Answer::Part { .. }) {
                self.shared.read_end(access, &mut reply.body)?;
            }
            if reply.short {
                return Err(Fault::EndedEarly);
            }
        }
        Ok(())
    }

    /// This mirror sent other bytes than the signed ones: it is not asked again, and what else it sent is forgotten.
    fn blame(&self, access: &Access, chunk: usize) {
        let mut state = self.shared.lock();
        if let Some(queue) = &mut state.queue {
            queue.forget(access.mirror);
        }
        self.shared.charge(&mut state, access, Fault::OtherBytes { chunk });
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
    /// No server is left; with the [`FetchError`](super::FetchError) inside.
    pub fn new(mut http: Http, data_start: u64, file_len: u64) -> io::Result<Self> {
        http.end_head();
        http.expect_length(file_len)?;
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
            self.http.plan(&[Span { start: self.data_start, end: self.file_len }])?;
            return Ok(Passage::Everything);
        }
        let spans: Vec<Span> =
            wanted.iter().filter_map(|number| chunks.get(*number)).map(|chunk| self.span(chunk)).collect();
        self.http.plan(&coalesce(&spans))?;
        Ok(Passage::Wanted)
    }

    fn next(&mut self, _: usize, chunk: &Chunk, into: &mut [u8]) -> io::Result<()> {
        if !self.planned {
            self.planned = true;
            self.http.plan(&[Span { start: self.data_start, end: self.file_len }])?;
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
        if !self.watched {
            self.start("watch", Shared::watch)?;
            self.watched = true;
        }
        self.head.as_mut().map_or(Ok(0), |head| head.read(into))
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.shared.close();
    }
}
