//! The root payload for several workers at once: each takes the next run of chunks, checks and decodes it on its own.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::chunk_source::{Again, ChunkSource, Passage};
use crate::codec::{ChunkDecoder, authenticate, fit};
use crate::delta::MAX_REFERENCE;
use crate::digest::Digest;
use crate::table::Chunk;

use super::{Base, ChunkError, Reading, VerifiedImage, ask_again};

/// Adjacent chunks up to so many plain bytes are taken together, so that what is written goes out in large pieces however small the
/// chunks are.
const RUN: usize = 1 << 20;

/// Where the plain bytes of a chunk may be had without its encoded ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the target slot, where the chunk belongs: nothing has to be written.
    InPlace,
    /// In the other slot, at this offset. Chunks whose places touch are read at once.
    At(u64),
}

/// Plain bytes of root that a slot may hold already. Whatever it says is a hint: every chunk is checked by its plain SHA-256 before it
/// is used, and taken from the source when it does not hold (IMG-56).
pub trait Reuse: Sync {
    /// Where the chunk should be, as far as is known without reading.
    fn claims(&self, number: usize, chunk: &Chunk) -> Option<Place>;

    /// Fills `into`, as long as one chunk or several that touch, from [`Place::At`] on.
    ///
    /// # Errors
    /// Whatever the medium says; a single chunk is then taken from the source.
    fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Fills memory with what the target slot holds at an offset.
pub type InPlace<'f> = dyn FnMut(u64, &mut [u8]) -> io::Result<()> + 'f;

/// No slot is known to hold anything.
#[derive(Debug, Clone, Copy)]
pub struct NoReuse;

impl Reuse for NoReuse {
    fn claims(&self, _: usize, _: &Chunk) -> Option<Place> {
        None
    }

    fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Where the bytes of root came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Encoded bytes from the source.
    pub fetched: u64,
    /// Plain bytes that were in place.
    pub in_place: u64,
    /// Plain bytes from elsewhere in a slot.
    pub reused: u64,
    /// Plain bytes that a slot was said to hold and did not.
    pub missed: u64,
}

impl std::ops::AddAssign for Taken {
    fn add_assign(&mut self, more: Self) {
        self.fetched += more.fetched;
        self.in_place += more.in_place;
        self.reused += more.reused;
        self.missed += more.missed;
    }
}

/// The root payload, shared between workers. Made by [`VerifiedImage::share_root`].
#[must_use]
pub struct SharedRoot<'a, S> {
    chunks: &'a [Chunk],
    root: Range<usize>,
    /// By chunk number; empty when nothing is reused.
    places: Vec<Option<Place>>,
    reuse: &'a dyn Reuse,
    base: Option<&'a Base>,
    feed: Mutex<Feed<'a>>,
    /// Never locked together with `feed`: who waits for the source keeps nobody from what the slots hold.
    source: Mutex<InTurn<'a, S>>,
    turned: Condvar,
}

/// The source, which gives runs in the order in which they were handed out.
struct InTurn<'a, S> {
    source: &'a mut S,
    /// Whose turn it is: how many runs were taken from it.
    turn: usize,
    /// It has failed, and stands nowhere in particular.
    broken: bool,
}

/// Wakes who waits for a turn.
struct Wakes<'w>(&'w Condvar);

impl Drop for Wakes<'_> {
    fn drop(&mut self) {
        self.0.notify_all();
    }
}

struct Feed<'a> {
    progress: &'a mut Reading,
    next: usize,
    /// How many of the runs that were handed out are the source's.
    turns: usize,
    taken: Taken,
    /// The first failure in chunk order; nothing is handed out behind it.
    failed: Option<(usize, ChunkError)>,
    stopped: bool,
}

/// Authentic bytes of root: what the signed table says of them holds, either of their encoded form or of themselves (IMG-53, IMG-56). That
/// they make up the signed root is the verity root hash's to say (IMG-54).
#[derive(Debug)]
pub struct RootRun<'b> {
    bytes: &'b [u8],
    offset: u64,
    first: usize,
    in_place: bool,
}

impl RootRun<'_> {
    /// The bytes; whole blocks.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Where they belong in the payload, and so in the slot.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The number of the first chunk in it.
    pub fn first_chunk(&self) -> usize {
        self.first
    }

    /// The target slot holds these bytes at this offset already.
    pub fn is_in_place(&self) -> bool {
        self.in_place
    }
}

impl<S: ChunkSource> VerifiedImage<S> {
    /// Hands out the root, which must be the payload that comes next, to several workers. The source learns which chunks will be taken: those
    /// that `reuse` does not claim to have, and those of all other payloads.
    ///
    /// # Errors
    /// When reading has begun or failed, or the source does.
    pub fn share_root<'a>(&'a mut self, reuse: &'a dyn Reuse) -> Result<SharedRoot<'a, S>, ChunkError> {
        self.check_ready()?;
        let chunks = &self.claims.chunks;
        let root = 0..chunks.iter().take_while(|chunk| chunk.payload == 0).count();
        if self.progress.chunk != root.start {
            return Err(ChunkError::AlreadyFailed);
        }
        let mut places: Vec<_> = root.clone().map(|number| reuse.claims(number, &chunks[number])).collect();
        let is_wanted = |number: &usize| places.get(*number).is_none_or(Option::is_none);
        let wanted: Vec<usize> = (0..chunks.len()).filter(is_wanted).collect();
        // Set until `finish` was reached: nobody knows where the source stands when a worker panics.
        self.progress.failed = true;
        let passage = self.source.plan(chunks, &wanted).map_err(|source| ChunkError::Io { chunk: 0, source })?;
        if passage == Passage::Everything {
            places.fill(None);
        }
        self.progress.chunk = root.end;
        let (progress, next) = (&mut self.progress, root.start);
        let feed = Feed { progress, next, turns: 0, taken: Taken::default(), failed: None, stopped: false };
        let source = InTurn { source: &mut self.source, turn: 0, broken: false };
        let (feed, source, turned) = (Mutex::new(feed), Mutex::new(source), Condvar::new());
        Ok(SharedRoot { chunks, root, places, reuse, base: self.base.as_ref(), feed, source, turned })
    }
}

impl<'a, S: ChunkSource> SharedRoot<'a, S> {
    /// A worker; each thread has its own.
    pub fn worker(&self) -> RootWorker<'_, 'a, S> {
        RootWorker { shared: self, decoder: ChunkDecoder::new(), encoded: Vec::new(), taken: Taken::default() }
    }

    /// The longest run that [`RootWorker::next`] gives: how much room it must be given.
    pub fn longest_run(&self) -> usize {
        self.longest(|chunk| chunk.plain_len).max(RUN)
    }

    /// Bytes that a worker needs at most, the room for a run included (IMG-60).
    pub fn worker_memory(&self) -> usize {
        let reference = if self.base.is_some() { MAX_REFERENCE as usize } else { 0 };
        self.longest_run() + self.longest(|chunk| chunk.encoded_len).max(RUN) + reference
    }

    fn longest(&self, len: impl Fn(&Chunk) -> u32) -> usize {
        self.chunks[self.root.clone()].iter().map(len).max().unwrap_or(0) as usize
    }

    /// Hands out nothing more: the caller has failed.
    pub fn stop(&self) {
        self.lock().stopped = true;
    }

    /// When all workers have got `None`: was everything handed out, and from where? Then the payloads behind root can be read.
    ///
    /// # Errors
    /// The first failure in chunk order; [`ChunkError::AlreadyFailed`] when it was the caller who stopped.
    pub fn finish(self) -> Result<Taken, ChunkError> {
        let feed = self.feed.into_inner().unwrap_or_else(PoisonError::into_inner);
        match feed.failed {
            Some((_, error)) => Err(error),
            None if feed.stopped || feed.next < self.root.end => Err(ChunkError::AlreadyFailed),
            None => {
                feed.progress.failed = false;
                Ok(feed.taken)
            }
        }
    }

    /// The chunks from `first` on that are taken together: adjacent, at the same kind of place, not too long in all.
    fn run_at(&self, first: usize) -> Range<usize> {
        let kind = self.places[first].map(|place| place == Place::InPlace);
        let (mut len, mut encoded) = (0, 0);
        let more = |number: &usize| {
            len += self.chunks[*number].plain_len as usize;
            encoded += self.chunks[*number].encoded_len as usize;
            *number == first
                || (len.max(encoded) <= RUN && self.places[*number].map(|place| place == Place::InPlace) == kind)
        };
        first..first + (first..self.root.end).take_while(more).count()
    }

    /// The chunks at the beginning of `chunks` whose places follow one another as they do themselves: how many bytes.
    fn adjacent(&self, chunks: Range<usize>) -> usize {
        let mut next = self.places[chunks.start];
        let follows = |number: &usize| {
            let follows = self.places[*number] == next;
            if let Some(Place::At(at)) = &mut next {
                *at = at.saturating_add(u64::from(self.chunks[*number].plain_len));
            }
            follows
        };
        chunks.take_while(follows).map(|number| self.chunks[number].plain_len as usize).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Feed<'a>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source, out of turn. `None`: a worker that panicked has left it nowhere in particular.
    fn source(&self) -> Option<MutexGuard<'_, InTurn<'a, S>>> {
        self.source.lock().ok()
    }

    /// The source, when it is this turn; `None` when it has failed before.
    fn source_at(&self, turn: usize) -> Option<MutexGuard<'_, InTurn<'a, S>>> {
        let source = self.source()?;
        let source = self.turned.wait_while(source, |source| source.turn != turn && !source.broken).ok()?;
        (!source.broken).then_some(source)
    }
}

/// One thread's part in reading root.
#[must_use]
pub struct RootWorker<'s, 'a, S> {
    shared: &'s SharedRoot<'a, S>,
    decoder: ChunkDecoder,
    /// Of the chunks of one run, one behind the other.
    encoded: Vec<u8>,
    /// Since the last run was taken.
    taken: Taken,
}

/// What a worker is to do next.
struct Job {
    chunks: Range<usize>,
    /// What the chunks are at; the same kind for all of them.
    in_place: bool,
    /// The source failed with the chunk behind the last one.
    failed: Option<ChunkError>,
}

impl<S: ChunkSource> RootWorker<'_, '_, S> {
    /// The next run of root, decoded and checked into `into`, which has room for [`SharedRoot::longest_run`]; the same memory alignment for
    /// every block as `into` has. `in_place` reads the target slot. `None` at the end, and as soon as anything has failed: [`SharedRoot::finish`] tells.
    pub fn next<'b>(&mut self, into: &'b mut [u8], in_place: &mut InPlace<'_>) -> Option<RootRun<'b>> {
        let job = self.take()?;
        let mut is_in_place = job.in_place;
        let (mut filled, mut encoded) = (0, 0);
        // How far `into` holds what a slot held, and whether that is still read in long pieces.
        let (mut read, mut together) = (0, true);
        for number in job.chunks.clone() {
            let chunk = &self.shared.chunks[number];
            let len = chunk.plain_len as usize;
            if self.shared.places[number].is_some() && read <= filled {
                let ahead = number..job.chunks.end;
                read = filled + self.read(ahead, &mut together, &mut into[filled..], in_place);
            }
            let room = &mut into[filled..filled + len];
            let done = match self.shared.places[number] {
                None => {
                    let range = encoded..encoded + chunk.encoded_len as usize;
                    encoded = range.end;
                    self.decode(number, range, room)
                }
                Some(place) if self.holds(number, place, read >= filled + len, room) => Ok(()),
                Some(_) => {
                    is_in_place = false;
                    self.fetch_missing(number, room)
                }
            };
            if let Err(error) = done {
                self.fail(number, error);
                return None;
            }
            filled += len;
        }
        if let Some(error) = job.failed {
            self.fail(job.chunks.end, error);
            return None;
        }
        let first = job.chunks.start;
        Some(RootRun {
            bytes: &into[..filled],
            offset: self.shared.chunks[first].plain_offset,
            first,
            in_place: is_in_place,
        })
    }

    /// Takes the next run and, when it is its turn, its encoded bytes.
    fn take(&mut self) -> Option<Job> {
        let shared = self.shared;
        let mut feed = shared.lock();
        feed.taken += std::mem::take(&mut self.taken);
        if feed.stopped || feed.failed.is_some() || feed.next == shared.root.end {
            return None;
        }
        let chunks = shared.run_at(feed.next);
        let in_place = shared.places[chunks.start] == Some(Place::InPlace);
        feed.next = chunks.end;
        if shared.places[chunks.start].is_some() {
            return Some(Job { chunks, in_place, failed: None });
        }
        let turn = feed.turns;
        feed.turns += 1;
        drop(feed);
        let lens = shared.chunks[chunks.clone()].iter().map(|chunk| chunk.encoded_len as usize);
        fit(&mut self.encoded, lens.sum());
        // Dropped behind the source, also when that panics.
        let _wakes = Wakes(&shared.turned);
        let mut source = shared.source_at(turn)?;
        let mut filled = 0;
        for number in chunks.clone() {
            let chunk = &shared.chunks[number];
            let into = &mut self.encoded[filled..filled + chunk.encoded_len as usize];
            if let Err(error) = source.source.next(number, chunk, into) {
                source.broken = true;
                drop(source);
                // What came before may be wrong, too, and then that is to be told.
                shared.stop();
                let failed = Some(ChunkError::from_source(number, shared.chunks.len(), error));
                return Some(Job { chunks: chunks.start..number, in_place, failed });
            }
            filled += chunk.encoded_len as usize;
            self.taken.fetched += u64::from(chunk.encoded_len);
        }
        source.turn += 1;
        Some(Job { chunks, in_place, failed: None })
    }

    /// Checks and decodes what the source gave, or gives when it is asked again.
    fn decode(&mut self, number: usize, encoded: Range<usize>, into: &mut [u8]) -> Result<(), ChunkError> {
        let chunk = &self.shared.chunks[number];
        let encoded = &mut self.encoded[encoded];
        if authenticate(chunk, encoded).is_err() {
            let mut source = self.shared.source().ok_or(ChunkError::AlreadyFailed)?;
            self.taken.fetched += ask_again(source.source, number, self.shared.chunks, encoded)?;
        }
        let decoded = match self.shared.base {
            None => self.decoder.decode(chunk, encoded, None, into),
            // The encoded bytes of a delta do not say what comes of them (IMG-54).
            Some(base) => self.decoder.decode_and_check(chunk, encoded, Some(&**base), into),
        };
        decoded.map_err(|error| ChunkError::from_decode(number, error))
    }

    /// Reads what a slot should hold of `chunks`: all that lie there one behind the other, or the first one alone, which has a place. How
    /// many bytes.
    fn read(&self, chunks: Range<usize>, together: &mut bool, into: &mut [u8], in_place: &mut InPlace<'_>) -> usize {
        let (place, first) = (self.shared.places[chunks.start], &self.shared.chunks[chunks.start]);
        let mut read = |len: usize| match place {
            Some(Place::InPlace) => in_place(first.plain_offset, &mut into[..len]).is_ok(),
            Some(Place::At(at)) => self.shared.reuse.read(at, &mut into[..len]).is_ok(),
            None => false,
        };
        let len = first.plain_len as usize;
        if *together {
            let long = self.shared.adjacent(chunks);
            if read(long) {
                return long;
            }
            if long == len {
                return 0;
            }
            // What can be read is not given up, and no medium is tried at great length.
            *together = false;
        }
        if read(len) { len } else { 0 }
    }

    /// Is what was read at its place the chunk?
    fn holds(&mut self, number: usize, place: Place, read: bool, bytes: &[u8]) -> bool {
        let chunk = &self.shared.chunks[number];
        let holds = read && Digest::of(bytes) == chunk.plain_sha256;
        let count = match place {
            _ if !holds => &mut self.taken.missed,
            Place::InPlace => &mut self.taken.in_place,
            Place::At(_) => &mut self.taken.reused,
        };
        *count += u64::from(chunk.plain_len);
        holds
    }

    fn fetch_missing(&mut self, number: usize, into: &mut [u8]) -> Result<(), ChunkError> {
        let shared = self.shared;
        let chunk = &shared.chunks[number];
        fit(&mut self.encoded, chunk.encoded_len as usize);
        let mut source = shared.source().ok_or(ChunkError::AlreadyFailed)?;
        source
            .source
            .again(number, chunk, &mut self.encoded, Again::Missing)
            .map_err(|error| ChunkError::from_source(number, shared.chunks.len(), error))?;
        drop(source);
        self.taken.fetched += u64::from(chunk.encoded_len);
        self.decode(number, 0..chunk.encoded_len as usize, into)
    }

    fn fail(&self, number: usize, error: ChunkError) {
        let mut feed = self.shared.lock();
        if feed.failed.as_ref().is_none_or(|(first, _)| number < *first) {
            feed.failed = Some((number, error));
        }
    }
}

impl<S> fmt::Debug for SharedRoot<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRoot").field("chunks", &self.root).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for RootWorker<'_, '_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootWorker").finish_non_exhaustive()
    }
}
