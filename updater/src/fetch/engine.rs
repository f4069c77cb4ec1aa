//! The threads that fetch pieces: several requests at a time over kept connections, each failure judged under one lock (FET-22, FET-27).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::backoff::{Retry, dice};
use super::client::Settings;
use super::fault::{Fault, FetchError};
use super::mirrors::{Mirrors, Next};
use super::queue::{Got, Job, Queue};
use super::ranges::Span;
use super::wire::{Body, Question, Reply, ask, read_end, read_some};

/// Read at a time, so that a rate limit works smoothly.
const BLOCK: usize = 64 * 1024;

/// Makes connections to one mirror, through this proxy if there is one.
pub type MakeAgent = Box<dyn Fn(Option<ureq::Proxy>) -> ureq::Agent + Send + Sync>;

/// What reader and workers share.
pub(super) struct Shared {
    make: MakeAgent,
    pub(super) settings: Settings,
    state: Mutex<State>,
    pub(super) changed: Condvar,
    /// Bytes of bodies that came.
    received: AtomicU64,
    /// Bodies that are being read.
    bodies: AtomicUsize,
    began: Instant,
}

pub(super) struct State {
    pub(super) mirrors: Mirrors,
    /// One for each mirror: its kept connections.
    agents: Vec<Option<ureq::Agent>>,
    proxies: Vec<Option<ureq::Proxy>>,
    pub(super) queue: Option<Queue>,
    /// Counts plans: what was asked for by an older one is dropped.
    pub(super) plan: u64,
    /// How long the file is, once that is known.
    pub(super) known: Option<u64>,
    /// A server has said so.
    pub(super) length_told: bool,
    /// Nobody asks before.
    pub(super) not_before: Instant,
    /// Requests that began before have been charged for with the one that failed first.
    charged: Instant,
    pub(super) failed: bool,
    pub(super) error: Option<FetchError>,
    pub(super) closing: bool,
    /// Somebody reads a whole file.
    whole_busy: bool,
    /// An open answer with the whole file, and how far it was read.
    pub(super) adopted: Option<(usize, Body, u64)>,
    /// Behind the last piece of a whole file: did something follow?
    pub(super) trailing: Option<bool>,
}

/// What a request needs to know, and what it is judged by.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) mirror: usize,
    agent: ureq::Agent,
    url: String,
    /// The address is where redirects led before.
    direct: bool,
    if_range: Option<String>,
    known: Option<u64>,
    plan: u64,
    pub(super) began: Instant,
}

enum Task {
    Piece(Job, Access),
    Whole(Option<(Body, u64)>, Access),
}

impl Shared {
    pub(super) fn new(
        make: MakeAgent,
        settings: Settings,
        urls: Vec<String>,
        proxies: Vec<Option<ureq::Proxy>>,
    ) -> Self {
        let now = Instant::now();
        let state = State {
            agents: vec![None; urls.len()],
            proxies,
            mirrors: Mirrors::new(urls),
            queue: None,
            plan: 0,
            known: None,
            length_told: false,
            not_before: now,
            charged: now,
            failed: false,
            error: None,
            closing: false,
            whole_busy: false,
            adopted: None,
            trailing: None,
        };
        Shared {
            make,
            settings,
            state: Mutex::new(state),
            changed: Condvar::new(),
            received: AtomicU64::new(0),
            bodies: AtomicUsize::new(0),
            began: now,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// A server has begun to answer, and we wait for more.
    pub(super) fn waits_for_body(&self) -> bool {
        self.bodies.load(Ordering::Relaxed) > 0
    }

    /// What must come while we wait for [`Patience::stall`](super::client::Patience::stall): less, where we ourselves take less.
    pub(super) fn least(&self) -> u64 {
        let patience = self.settings.patience;
        let ours = self.settings.limit.in_time(patience.stall);
        ours.map_or(patience.least, |ours| patience.least.min(ours / 2))
    }

    /// Reads once and pays for it.
    pub(super) fn read(&self, body: &mut Body, into: &mut [u8]) -> Result<usize, Fault> {
        let most = into.len().min(BLOCK);
        self.bodies.fetch_add(1, Ordering::Relaxed);
        let read = read_some(body, &mut into[..most], self.settings.patience.stall);
        self.bodies.fetch_sub(1, Ordering::Relaxed);
        let read = read?;
        self.received.fetch_add(read as u64, Ordering::Relaxed);
        self.settings.limit.pay(read);
        Ok(read)
    }

    /// How to ask the current mirror.
    pub(super) fn access(&self, state: &mut State) -> Access {
        let mirror = state.mirrors.current();
        self.access_to(state, mirror)
    }

    pub(super) fn access_to(&self, state: &mut State, mirror: usize) -> Access {
        let proxy = &state.proxies[mirror];
        let agent = state.agents[mirror].get_or_insert_with(|| (self.make)(proxy.clone()));
        let agent = agent.clone();
        let (known, plan) = (state.known, state.plan);
        let found = state.mirrors.get(mirror);
        Access {
            mirror,
            agent,
            url: found.direct.clone().unwrap_or_else(|| found.url.clone()),
            direct: found.direct.is_some(),
            if_range: found.etag.clone(),
            known,
            plan,
            began: Instant::now(),
        }
    }

    /// Asks for a span, or for the whole file, and remembers what the answer says of the server.
    pub(super) fn ask(&self, access: &Access, span: Option<Span>) -> Result<Reply, Fault> {
        let Access { agent, url, known, if_range, .. } = access;
        let reply = ask(agent, &Question { url, span, known: *known, if_range: if_range.as_deref() })?;
        let mut state = self.lock();
        let mirror = state.mirrors.get(access.mirror);
        if let Some(moved) = &reply.moved {
            mirror.direct = Some(moved.clone());
        }
        if matches!(reply.answer, Answer::Part { .. }) {
            mirror.etag = reply.etag.clone();
        }
        Ok(reply)
    }

    /// Judges a fault: who is asked next, and when. True: there is a next time.
    pub(super) fn charge(&self, state: &mut State, access: &Access, fault: Fault, retry: &Retry) -> bool {
        if state.failed || state.closing {
            return false;
        }
        let now = Instant::now();
        // Where a redirect led before may be gone: the address itself is asked before anybody is blamed.
        let unanswered = matches!(fault, Fault::Status { .. } | Fault::NoAnswer(_) | Fault::Redirects);
        if unanswered && access.direct {
            let direct = &mut state.mirrors.get(access.mirror).direct;
            *direct = direct.take().filter(|now| *now != access.url);
            return true;
        }
        // One cut breaks all connections: it is one failure.
        if !fault.is_final() && access.began < state.charged {
            return true;
        }
        state.charged = now;
        let next = state.mirrors.fault(access.mirror, fault, retry, now - self.began, dice());
        if let Next::After(wait) = next {
            state.not_before = now + wait;
        } else {
            state.failed = true;
            state.error = Some(state.mirrors.error(self.received()));
        }
        self.changed.notify_all();
        next != Next::Over
    }

    /// Ends whatever this mirror is sending: a slow answer would keep its worker for ever.
    pub(super) fn hang_up(&self, state: &mut State, mirror: usize) {
        if let Some(agent) = state.agents[mirror].take() {
            agent.shutdown();
        }
    }

    pub(super) fn progress(&self, state: &mut State) {
        state.mirrors.progress(self.began.elapsed());
    }

    /// Ends all threads, soon.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.adopted = None;
        for mirror in 0..state.agents.len() {
            self.hang_up(&mut state, mirror);
        }
        self.changed.notify_all();
    }

    /// A worker's life.
    pub(super) fn work(&self) {
        while let Some(task) = self.next_task() {
            match task {
                Task::Piece(job, access) => self.fetch_piece(job, &access),
                Task::Whole(stream, access) => {
                    self.fetch_whole(stream, &access);
                    self.lock().whole_busy = false;
                    self.changed.notify_all();
                }
            }
        }
    }

    fn next_task(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if state.closing {
                return None;
            }
            let wait = state.not_before.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if !state.failed
                && let Some(task) = self.take(&mut state)
            {
                return Some(task);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take(&self, state: &mut State) -> Option<Task> {
        let mirror = state.mirrors.current();
        if state.mirrors.get(mirror).whole {
            let queue = state.queue.as_mut()?;
            if state.whole_busy || !queue.has_work() {
                return None;
            }
            state.whole_busy = true;
            let adopted = state.adopted.take().filter(|(whose, _, _)| *whose == mirror).map(|(_, body, at)| (body, at));
            return Some(Task::Whole(adopted, self.access(state)));
        }
        let job = state.queue.as_mut()?.take(mirror)?;
        Some(Task::Piece(job, self.access(state)))
    }

    /// Fetches the rest of a piece by ranges.
    fn fetch_piece(&self, mut job: Job, access: &Access) {
        while (job.bytes.len() as u64) < job.span.len() {
            let rest = Span { start: job.span.start + job.bytes.len() as u64, end: job.span.end };
            let reply = match self.ask(access, Some(rest)) {
                Ok(reply) => reply,
                Err(fault) => return self.failed(job, access, Some(fault)),
            };
            match reply.answer {
                Answer::Part { span, .. } => {
                    if let Err(fault) = self.read_into(&mut job, reply.body, span.len()) {
                        return self.failed(job, access, Some(fault));
                    }
                }
                // The mark differs: another file, or another server of many behind one name. Without the mark its length, and in any case
                // the chunks' digests, tell.
                Answer::Whole { .. } if access.if_range.is_some() => {
                    self.lock().mirrors.get(access.mirror).etag = None;
                    return self.failed(job, access, None);
                }
                Answer::Whole { .. } => return self.go_on_whole(job, access, reply.body),
            }
        }
        self.finish(job, access);
    }

    /// The server has stopped serving ranges: what it sends now is the file from its beginning.
    fn go_on_whole(&self, job: Job, access: &Access, body: Body) {
        let mut state = self.lock();
        state.mirrors.get(access.mirror).whole = true;
        state.adopted = Some((access.mirror, body, 0));
        drop(state);
        self.failed(job, access, None);
    }

    fn read_into(&self, job: &mut Job, mut body: Body, len: u64) -> Result<(), Fault> {
        let start = job.bytes.len();
        let end = start + usize::try_from(len).unwrap_or(usize::MAX);
        job.bytes.reserve_exact(usize::try_from(job.span.len()).unwrap_or(0).saturating_sub(start));
        job.bytes.resize(end, 0);
        let mut at = start;
        let mut read = || -> Result<(), Fault> {
            while at < end {
                match self.read(&mut body, &mut job.bytes[at..end])? {
                    0 => return Err(Fault::EndedEarly),
                    came => at += came,
                }
            }
            read_end(&mut body, self.settings.patience.stall)
        };
        let result = read();
        job.bytes.truncate(at);
        result
    }

    fn finish(&self, job: Job, access: &Access) {
        let mut state = self.lock();
        if state.plan == access.plan
            && let Some(queue) = &mut state.queue
        {
            queue.finish(job.index, Got { bytes: job.bytes, mirror: access.mirror });
            self.progress(&mut state);
        }
        self.changed.notify_all();
    }

    /// Gives a piece back, and charges for the fault, if there is one.
    fn failed(&self, job: Job, access: &Access, fault: Option<Fault>) {
        let mut state = self.lock();
        if state.plan == access.plan
            && let Some(queue) = &mut state.queue
        {
            queue.put_back(job.index, Got { bytes: job.bytes, mirror: access.mirror });
        }
        if let Some(fault) = fault {
            let retry = self.settings.fetching;
            self.charge(&mut state, access, fault, &retry);
        }
        self.changed.notify_all();
    }

    /// Reads the whole file from its beginning, and takes from it the pieces as they come past (FET-25).
    fn fetch_whole(&self, stream: Option<(Body, u64)>, access: &Access) {
        let retry = self.settings.fetching;
        let (mut body, mut at) = match stream {
            Some(stream) => stream,
            None => match self.ask(access, None) {
                Ok(reply) => (reply.body, 0),
                Err(fault) => {
                    self.charge(&mut self.lock(), access, fault, &retry);
                    return;
                }
            },
        };
        while let Some(mut job) = self.next_of_whole(access, &mut body) {
            let start = job.span.start + job.bytes.len() as u64;
            if start < at {
                // It came past already: the file is read again.
                return self.failed(job, access, None);
            }
            let read = self.skip(&mut body, start - at).and_then(|()| self.read_piece(&mut body, &mut job));
            at = job.span.start + job.bytes.len() as u64;
            match read {
                Ok(()) => self.finish(job, access),
                Err(fault) => return self.failed(job, access, Some(fault)),
            }
        }
    }

    fn skip(&self, body: &mut Body, mut bytes: u64) -> Result<(), Fault> {
        let mut waste = vec![0; BLOCK];
        while bytes > 0 {
            let most = usize::try_from(bytes).map_or(BLOCK, |bytes| bytes.min(BLOCK));
            match self.read(body, &mut waste[..most])? {
                0 => return Err(Fault::EndedEarly),
                came => bytes -= came as u64,
            }
        }
        Ok(())
    }

    fn read_piece(&self, body: &mut Body, job: &mut Job) -> Result<(), Fault> {
        let len = usize::try_from(job.span.len()).unwrap_or(usize::MAX);
        let mut at = job.bytes.len();
        job.bytes.resize(len, 0);
        let mut read = || {
            while at < len {
                match self.read(body, &mut job.bytes[at..])? {
                    0 => return Err(Fault::EndedEarly),
                    came => at += came,
                }
            }
            Ok(())
        };
        let result = read();
        job.bytes.truncate(at);
        result
    }

    /// Waits for the next piece that the reader has room for; `None` when there will be none for this body.
    fn next_of_whole(&self, access: &Access, body: &mut Body) -> Option<Job> {
        let mut state = self.lock();
        loop {
            let stay = !state.closing && !state.failed && state.plan == access.plan;
            if !stay || state.mirrors.current() != access.mirror {
                return None;
            }
            let queue = state.queue.as_mut()?;
            if let Some(job) = queue.take(access.mirror) {
                return Some(job);
            }
            if queue.all_taken() {
                drop(state);
                let follows = read_some(body, &mut [0], Duration::MAX).map(|came| came > 0);
                self.lock().trailing = follows.ok();
                self.changed.notify_all();
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
