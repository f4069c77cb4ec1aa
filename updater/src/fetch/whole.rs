//! A server that knows no ranges: the whole file as a stream, of which the pieces are taken as they come past (FET-25).

use std::sync::PoisonError;
use std::time::Duration;

use super::engine::{Access, BLOCK, Shared};
use super::fault::Fault;
use super::queue::Job;
use super::wire::{Body, read_some};

impl Shared {
    /// Reads the whole file from its beginning, and takes from it the pieces as they come past (FET-25).
    pub(super) fn fetch_whole(&self, stream: Option<(Body, u64)>, access: &Access) {
        let (mut body, mut at) = match stream {
            Some(stream) => stream,
            None => match self.ask(access, None) {
                Ok(reply) => (reply.body, 0),
                Err(fault) => {
                    self.charge(&mut self.lock(), access, fault);
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
            let read = self.skip(access, &mut body, start - at);
            let read = read.and_then(|()| self.read_piece(access, &mut body, &mut job));
            at = job.span.start + job.bytes.len() as u64;
            match read {
                Ok(()) => self.finish(job, access),
                Err(fault) => return self.failed(job, access, Some(fault)),
            }
        }
    }

    pub(super) fn skip(&self, access: &Access, body: &mut Body, mut bytes: u64) -> Result<(), Fault> {
        let mut waste = vec![0; BLOCK];
        while bytes > 0 {
            let most = usize::try_from(bytes).map_or(BLOCK, |bytes| bytes.min(BLOCK));
            match self.read(access, body, &mut waste[..most])? {
                0 => return Err(Fault::EndedEarly),
                came => bytes -= came as u64,
            }
        }
        Ok(())
    }

    fn read_piece(&self, access: &Access, body: &mut Body, job: &mut Job) -> Result<(), Fault> {
        let len = usize::try_from(job.span.len()).unwrap_or(usize::MAX);
        let mut at = job.bytes.len();
        job.bytes.resize(len, 0);
        let mut read = || {
            while at < len {
                match self.read(access, body, &mut job.bytes[at..])? {
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
            let stay = !state.closing && state.error.is_none() && state.plan == access.plan;
            if !stay || state.mirrors.current() != access.mirror {
                return None;
            }
            let queue = state.queue.as_mut()?;
            if let Some(job) = queue.take(access.mirror) {
                return Some(job);
            }
            if queue.all_taken() {
                drop(state);
                // The last chunk came: a connection that breaks now has ended, too.
                let follows = self.wait_for(access, || read_some(body, &mut [0], Duration::MAX)).unwrap_or(0) > 0;
                self.lock().trailing = Some(follows);
                self.changed.notify_all();
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
