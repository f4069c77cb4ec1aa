//! Compresses chunks on all processors and hands them on in order, so that the result does not depend on how many there are (IMG-55).

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use zstd::zstd_safe::{self, CCtx, CParameter};

use crate::digest::Digest;

/// More threads than any machine has use for; each holds two chunks.
pub(crate) const MAX_WORKERS: usize = 256;

/// 4 MiB of reference and a chunk of 4 MiB (IMG-53, IMG-72).
const PATCH_WINDOW_LOG: u32 = 23;

/// A chunk, compressed.
#[derive(Debug)]
pub(crate) struct Compressed {
    pub(crate) plain_len: u32,
    pub(crate) plain_sha256: Digest,
    pub(crate) encoded: Vec<u8>,
}

/// Takes plain chunks from `next` until it has no more and gives each, compressed, to `done` in the same order. At most two chunks a
/// worker are in memory, and there are at most [`MAX_WORKERS`].
pub(crate) fn in_order<E: From<CompressError>>(
    level: i32,
    workers: NonZeroUsize,
    next: impl FnMut() -> Result<Option<Vec<u8>>, E>,
    done: impl FnMut(Compressed) -> Result<(), E>,
) -> Result<(), E> {
    each_in_order(workers, |plain: &Vec<u8>| compress(plain, level), next, done)
}

/// As [`in_order`], for any jobs and any work on them.
pub(crate) fn each_in_order<J: Send, D: Send, E: From<CompressError>>(
    workers: NonZeroUsize,
    work: impl Fn(&J) -> Result<D, CompressError> + Sync,
    mut next: impl FnMut() -> Result<Option<J>, E>,
    mut done: impl FnMut(D) -> Result<(), E>,
) -> Result<(), E> {
    let workers = workers.get().min(MAX_WORKERS);
    let most = 2 * workers;
    thread::scope(|scope| {
        let (to_workers, jobs) = mpsc::channel::<(u64, J)>();
        let (to_us, results) = mpsc::channel();
        let jobs = std::sync::Arc::new(Mutex::new(jobs));
        // However this closure is left, `to_workers` is dropped with it and the workers come to their end.
        let to_workers = to_workers;
        for _ in 0..workers {
            let (jobs, to_us, work) = (jobs.clone(), to_us.clone(), &work);
            let run = move || {
                loop {
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number, job)) = job else { break };
                    if to_us.send((number, work(&job))).is_err() {
                        break;
                    }
                }
            };
            thread::Builder::new().spawn_scoped(scope, run).map_err(CompressError::Spawn)?;
        }
        drop(to_us);

        let mut waiting = BTreeMap::new();
        let (mut sent, mut written, mut more) = (0, 0, true);
        loop {
            while more && sent - written < most as u64 {
                match next()? {
                    Some(job) => {
                        to_workers.send((sent, job)).map_err(|_| CompressError::Zstd("the workers have gone"))?;
                        sent += 1;
                    }
                    None => more = false,
                }
            }
            if written == sent {
                return Ok(());
            }
            let (number, result) = results.recv().map_err(|_| CompressError::Zstd("the workers have gone"))?;
            waiting.insert(number, result);
            while let Some(result) = waiting.remove(&written) {
                done(result?)?;
                written += 1;
            }
        }
    })
}

/// Why nothing more is compressed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompressError {
    /// zstd could not.
    #[error("zstd: {0}")]
    Zstd(&'static str),
    /// The system gave no thread.
    #[error("cannot start a thread")]
    Spawn(#[source] io::Error),
}

/// Compresses a chunk by itself.
pub(crate) fn compress(plain: &[u8], level: i32) -> Result<Compressed, CompressError> {
    compress_after(&[], plain, level)
}

/// Compresses a chunk so that it can refer to what is in `prefix`, which its decoder must have; empty: to nothing.
pub(crate) fn compress_after(prefix: &[u8], plain: &[u8], level: i32) -> Result<Compressed, CompressError> {
    let zstd_error = |code| CompressError::Zstd(zstd_safe::get_error_name(code));
    // A new context for each chunk: a reused one carries the salt of its hash tables over, and the output could depend on what the same
    // worker compressed before (IMG-55).
    let mut context = CCtx::try_create().ok_or(CompressError::Zstd("out of memory"))?;
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(zstd_error)?;
    // zstd's own checksum, so that `zstd -t` finds damage, too.
    context.set_parameter(CParameter::ChecksumFlag(true)).map_err(zstd_error)?;
    if !prefix.is_empty() {
        // All of prefix and chunk within reach of every byte.
        context.set_parameter(CParameter::WindowLog(PATCH_WINDOW_LOG)).map_err(zstd_error)?;
        // The tables of low levels hold no more than the last part of a long prefix.
        context.set_parameter(CParameter::EnableLongDistanceMatching(true)).map_err(zstd_error)?;
        context.ref_prefix(prefix).map_err(zstd_error)?;
    }
    let mut encoded = Vec::with_capacity(zstd_safe::compress_bound(plain.len()));
    context.compress2(&mut encoded, plain).map_err(zstd_error)?;
    Ok(Compressed {
        // Chunks are at most 4 MiB.
        plain_len: plain.len() as u32,
        plain_sha256: Digest::of(plain),
        encoded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text-like, so that zstd's match finders have something to do.
    fn chunk(seed: u32) -> Vec<u8> {
        let mut state = seed;
        let mut bytes = Vec::new();
        while bytes.len() < 200_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.extend_from_slice(format!("{} ", (state >> 16) % 700).as_bytes());
        }
        bytes
    }

    fn run(level: i32, workers: usize) -> Vec<Vec<u8>> {
        let mut plain = (0..12).map(chunk);
        let mut encoded = Vec::new();
        in_order::<CompressError>(
            level,
            NonZeroUsize::new(workers).unwrap(),
            || Ok(plain.next()),
            |compressed| {
                encoded.push(compressed.encoded);
                Ok(())
            },
        )
        .unwrap();
        encoded
    }

    #[test]
    fn img_55_output_depends_neither_on_workers_nor_on_neighbours() {
        for level in [1, 5, 7, 12, 15] {
            let alone: Vec<Vec<u8>> = (0..12).map(|seed| compress(&chunk(seed), level).unwrap().encoded).collect();
            for workers in [1, 2, 5, usize::MAX] {
                assert!(run(level, workers) == alone, "level {level}, {workers} workers");
            }
        }
    }

    #[test]
    fn an_error_from_either_end_stops_the_pipeline() {
        let workers = NonZeroUsize::new(3).unwrap();
        let mut given = 0;
        let failing_source = || {
            given += 1;
            if given == 5 { Err(CompressError::Zstd("source")) } else { Ok(Some(chunk(given))) }
        };
        let stopped = in_order(1, workers, failing_source, |_| Ok(()));
        assert!(matches!(stopped, Err(CompressError::Zstd("source"))), "{stopped:?}");

        let mut taken = 0;
        let failing_sink = |_| {
            taken += 1;
            if taken == 2 { Err(CompressError::Zstd("sink")) } else { Ok(()) }
        };
        let stopped = in_order(1, workers, || Ok(Some(chunk(1))), failing_sink);
        assert!(matches!(stopped, Err(CompressError::Zstd("sink"))), "{stopped:?}");
    }
}
