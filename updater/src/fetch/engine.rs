//! The threads that fetch pieces: several requests at a time over kept connections, each failure judged under one lock (FET-22, FET-27).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::answer::Answer;
use super::backoff::{Retry, dice};
use super::client::{Patience, Settings};
use super::fault::{Fault, FetchError};
use super::mirrors::{Mirrors, Next};
use super::queue::{Got, Job, Queue};
use super::ranges::Span;
use super::watch::{TooSlow, Watch};
use super::wire::{Body, Question, Reply, ask, read_end, read_some};

/// Read at a time, so that a rate limit works smoothly.
pub(super) const BLOCK: usize = 64 * 1024;

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
    /// Locked while `state` is, or alone.
    watch: Mutex<Watch>,
    began: Instant,
}

pub(super) struct State {
    pub(super) mirrors: Mirrors,
    /// One for each mirror: its kept connections.
    agents: Vec<Option<ureq::Agent>>,
    /// When we hung up on it.
    hung_up: Vec<Option<Instant>>,
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
    /// How patiently servers are asked again.
    pub(super) retry: Retry,
    /// Why it is over: for everybody who asks.
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
    pub(super) if_range: Option<String>,
    pub(super) known: Option<u64>,
    pub(super) plan: u64,
    pub(super) began: Instant,
}

impl State {
    /// Is it over?
    ///
    /// # Errors
    /// Yes; with the [`FetchError`] inside if servers ended it. `other` and not `UnexpectedEof`: readers of images would call that a
    /// truncated file and drop the message.
    pub(super) fn check(&self) -> io::Result<()> {
        match &self.error {
            Some(error) => Err(io::Error::other(error.clone())),
            None if self.closing => Err(io::Error::other("the fetching was ended from outside")),
            None => Ok(()),
        }
    }
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
            hung_up: vec![None; urls.len()],
            proxies,
            mirrors: Mirrors::new(urls),
            queue: None,
            plan: 0,
            known: None,
            length_told: false,
            not_before: now,
            charged: now,
            retry: settings.opening,
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
            watch: Mutex::default(),
            began: now,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn watched(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a server: whatever is done with the network is done in here, so that its time is counted.
    pub(super) fn wait_for<T>(&self, access: &Access, what: impl FnOnce() -> T) -> T {
        self.watched().enter(access.mirror, self.began.elapsed());
        let done = what();
        self.watched().leave(access.mirror, self.began.elapsed());
        done
    }

    /// Looks, until all is over, whether servers bring enough, and hangs up on those that do not: nothing else ends a read that never
    /// returns (FET-26).
    pub(super) fn watch(&self) {
        let often = (self.settings.patience.stall / 8).max(Duration::from_millis(1));
        let mut state = self.lock();
        while !state.closing {
            let patience = Patience { least: self.least(), ..self.settings.patience };
            let slow = self.watched().judge(self.began.elapsed(), self.received(), patience);
            if let Some(TooSlow { waited, silent, mut busy }) = slow {
                let current = state.mirrors.current();
                let guilty = busy.iter().copied().find(|busy| *busy == current).or(busy.first().copied());
                let access = self.access_to(&mut state, guilty.unwrap_or(current));
                busy.push(access.mirror);
                busy.iter().for_each(|mirror| self.hang_up(&mut state, *mirror));
                let fault =
                    if silent { Fault::Silent(waited) } else { Fault::Trickle { least: patience.least, waited } };
                self.charge(&mut state, &access, fault);
            }
            state = self.changed.wait_timeout(state, often).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits without waiting for anybody, until all is over at the latest.
    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        while !state.closing {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until somebody may be asked.
    ///
    /// # Errors
    /// It is over.
    pub(super) fn turn(&self) -> io::Result<Access> {
        let mut state = self.lock();
        loop {
            state.check()?;
            let wait = state.not_before.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Ok(self.access(&mut state));
            }
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What must come while we wait for [`Patience::stall`](super::client::Patience::stall): less, where we ourselves take less.
    pub(super) fn least(&self) -> u64 {
        let patience = self.settings.patience;
        let ours = self.settings.limit.in_time(patience.stall);
        ours.map_or(patience.least, |ours| patience.least.min(ours / 2))
    }

    /// Reads once and pays for it.
    pub(super) fn read(&self, access: &Access, body: &mut Body, into: &mut [u8]) -> Result<usize, Fault> {
        let most = into.len().min(BLOCK);
        let stall = self.settings.patience.stall;
        let read = self.wait_for(access, || read_some(body, &mut into[..most], stall))?;
        // A body that is as long as its connection looks whole when we hang up.
        if read == 0 && self.lock().hung_up[access.mirror].is_some_and(|when| access.began <= when) {
            return Err(Fault::EndedEarly);
        }
        self.received.fetch_add(read as u64, Ordering::Relaxed);
        let cost = self.settings.limit.wait_for(read);
        if !cost.is_zero() {
            self.pause(cost);
        }
        Ok(read)
    }

    /// Behind the last byte of an answer to a range.
    pub(super) fn read_end(&self, access: &Access, body: &mut Body) -> Result<(), Fault> {
        self.wait_for(access, || read_end(body, self.settings.patience.stall))
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
        if state.closing {
            agent.clone().shutdown();
        }
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

    /// As before, but for the file's mark: many servers behind one name mark the same file differently (FET-24).
    pub(super) fn without_mark(&self, access: &Access) -> Access {
        let mut state = self.lock();
        state.mirrors.get(access.mirror).etag = None;
        self.access_to(&mut state, access.mirror)
    }

    /// Asks for a span, or for the whole file, and remembers what the answer says of the server.
    pub(super) fn ask(&self, access: &Access, span: Option<Span>) -> Result<Reply, Fault> {
        let Access { agent, url, known, if_range, .. } = access;
        let question = Question { url, span, known: *known, if_range: if_range.as_deref() };
        let reply = self.wait_for(access, || ask(agent, &question))?;
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

    /// Judges a fault: who is asked next, and when; or that it is over.
    pub(super) fn charge(&self, state: &mut State, access: &Access, fault: Fault) {
        if state.error.is_some() || state.closing {
            return;
        }
        let now = Instant::now();
        // Where a redirect led before may be gone: the address itself is asked before anybody is blamed.
        if access.direct {
            self.watched().start_over(self.began.elapsed(), self.received());
            let direct = &mut state.mirrors.get(access.mirror).direct;
            *direct = direct.take().filter(|now| *now != access.url);
            return;
        }
        // One cut breaks all connections: it is one failure.
        if !fault.is_final() && access.began < state.charged {
            return;
        }
        state.charged = now;
        self.watched().start_over(self.began.elapsed(), self.received());
        let retry = state.retry;
        match state.mirrors.fault(access.mirror, fault, &retry, now - self.began, dice()) {
            Next::After(wait) => state.not_before = now + wait,
            Next::Over => state.error = Some(state.mirrors.error(self.received())),
        }
        self.changed.notify_all();
    }

    /// Judges what a mirror sent, wherever its redirects led: they get no second chance, or a server could send us round for ever.
    pub(super) fn strike(&self, state: &mut State, mirror: usize, fault: Fault) {
        let access = Access { direct: false, ..self.access_to(state, mirror) };
        self.charge(state, &access, fault);
    }

    /// Ends whatever this mirror is sending: a slow answer would keep its worker for ever.
    fn hang_up(&self, state: &mut State, mirror: usize) {
        state.hung_up[mirror] = Some(Instant::now());
        state.adopted = state.adopted.take().filter(|(whose, _, _)| *whose != mirror);
        if let Some(agent) = state.agents[mirror].take() {
            agent.shutdown();
        }
    }

    pub(super) fn progress(&self, state: &mut State) {
        state.mirrors.progress();
    }

    /// Ends all threads, soon.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.adopted = None;
        // Who only wants to know how it went stays longer than the bytes should.
        state.queue = None;
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
            if state.error.is_none()
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
                    let read = self.read_into(access, &mut job, reply.body, span.len());
                    if let Err(fault) = read.and(if reply.short { Err(Fault::EndedEarly) } else { Ok(()) }) {
                        return self.failed(job, access, Some(fault));
                    }
                }
                // The mark differs: another file, or another server of many behind one name. Without the mark its length, and in any case
                // the chunks' digests, tell.
                Answer::Whole { .. } if access.if_range.is_some() => {
                    self.without_mark(access);
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

    fn read_into(&self, access: &Access, job: &mut Job, mut body: Body, len: u64) -> Result<(), Fault> {
        let start = job.bytes.len();
        let end = start + usize::try_from(len).unwrap_or(usize::MAX);
        job.bytes.reserve_exact(usize::try_from(job.span.len()).unwrap_or(0).saturating_sub(start));
        job.bytes.resize(end, 0);
        let mut at = start;
        let mut read = || -> Result<(), Fault> {
            while at < end {
                match self.read(access, &mut body, &mut job.bytes[at..end])? {
                    0 => return Err(Fault::EndedEarly),
                    came => at += came,
                }
            }
            self.read_end(access, &mut body)
        };
        let result = read();
        job.bytes.truncate(at);
        result
    }

    pub(super) fn finish(&self, job: Job, access: &Access) {
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
    pub(super) fn failed(&self, job: Job, access: &Access, fault: Option<Fault>) {
        let mut state = self.lock();
        if state.plan == access.plan
            && let Some(queue) = &mut state.queue
        {
            queue.put_back(job.index, Got { bytes: job.bytes, mirror: access.mirror });
        }
        if let Some(fault) = fault {
            self.charge(&mut state, access, fault);
        }
        self.changed.notify_all();
    }
}
