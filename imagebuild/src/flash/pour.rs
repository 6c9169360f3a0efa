// SPDX-License-Identifier: Apache-2.0
//! One reader and many writers: the image is unpacked once, while all cards are written.
//!
//! The reader waits for the slowest card, so at most [`WAITING`] pieces for each card are in memory, and all cards share
//! them. A card that fails is left behind; the others go on.

use super::card::{Card, memory};
use super::chunk::{Aligned, CHUNK, Chunk, Sum};
use super::image::truncated;
use super::lane::Lane;
use crate::exit::{Failure, INTERRUPTED};
use crate::packing::fill;
use anyhow::{Context, Result, bail, ensure};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Pieces that wait for a card, of 4 MiB each.
const WAITING: usize = 4;

/// A card, and where its progress is shown.
pub struct Job {
    /// The card.
    pub card: Card,
    /// Where its progress is shown.
    pub lane: Lane,
}

/// Writes the content to all cards, reads it back from each, and finishes those that are good. A card that failed has
/// its partition table cleared, and so has each one where the content has fewer than `least` bytes. The results are in
/// the order of the jobs.
pub fn pour(content: &mut (dyn Read + Send), least: u64, jobs: &mut [Job], stop: &AtomicBool) -> Vec<Result<()>> {
    let (sums, mut results) = write_all(content, least, jobs, stop);
    let sums = match sums {
        Ok(sums) => sums,
        Err(error) => {
            let error = Arc::new(error);
            for result in &mut results {
                if result.is_ok() {
                    *result = Err(anyhow::Error::from(Failure::new(crate::exit::code(&error), format!("{error:#}"))));
                }
            }
            Vec::new()
        }
    };
    thread::scope(|scope| {
        let sums = &sums;
        let check = |(job, written): (_, Result<()>)| scope.spawn(move || finish(job, written, sums, stop));
        let threads: Vec<_> = jobs.iter_mut().zip(results).map(check).collect();
        threads.into_iter().map(join).collect()
    })
}

fn join(thread: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| bail!("a thread of this program ended: report this as a bug"))
}

/// Writes all pieces but the first; returns what they must be, and what became of each card.
fn write_all(
    content: &mut (dyn Read + Send),
    least: u64,
    jobs: &mut [Job],
    stop: &AtomicBool,
) -> (Result<Vec<Sum>>, Vec<Result<()>>) {
    thread::scope(|scope| {
        let (mut senders, mut threads) = (Vec::new(), Vec::new());
        for job in jobs {
            let (sender, receiver) = sync_channel(WAITING);
            senders.push(Some(sender));
            threads.push(scope.spawn(move || write(job, &receiver)));
        }
        let sums = read(content, least, &mut senders, stop);
        drop(senders);
        (sums, threads.into_iter().map(join).collect())
    })
}

/// The reader's side: pieces in their order to every card that has not failed.
fn read(
    content: &mut (dyn Read + Send),
    least: u64,
    senders: &mut [Option<SyncSender<Arc<Chunk>>>],
    stop: &AtomicBool,
) -> Result<Vec<Sum>> {
    let mut sums = Vec::new();
    let mut offset = 0;
    loop {
        interrupted(stop)?;
        let mut bytes = Aligned::zeros(CHUNK);
        let len = fill(content, bytes.get_mut());
        // Whatever ended the reading, an interruption comes first.
        interrupted(stop)?;
        let len = len.with_context(|| format!("read the image after {offset} bytes"))?;
        if len == 0 {
            // An image that was packed when it was truncated already unpacks without an error.
            ensure!(offset == 0 || offset >= least, "read the image: {}", truncated(offset, least));
            return Ok(sums);
        }
        bytes.truncate(len);
        let sum = Sum::of(offset, bytes.get());
        sums.push(sum);
        offset += len as u64;
        let chunk = Arc::new(Chunk { bytes, sum });
        for sender in senders.iter_mut() {
            if sender.as_ref().is_some_and(|s| s.send(Arc::clone(&chunk)).is_err()) {
                *sender = None;
            }
        }
        if senders.iter().all(Option::is_none) {
            return Ok(sums);
        }
    }
}

/// One card's side.
fn write(job: &mut Job, pieces: &Receiver<Arc<Chunk>>) -> Result<()> {
    job.card.clear()?;
    for chunk in pieces {
        job.card.write(&chunk)?;
        job.lane.advance(chunk.sum.len as u64);
    }
    job.card.flush()
}

/// Reads a card back, then gives it its first piece; or clears what must not be taken for a card that is good.
fn finish(job: &mut Job, written: Result<()>, sums: &[Sum], stop: &AtomicBool) -> Result<()> {
    let result = written.and_then(|()| check(job, sums, stop));
    if result.is_err() {
        // What failed counts; a card that was removed cannot be cleared, and has no table since it was begun.
        let _ = job.card.clear();
    }
    result
}

fn check(job: &mut Job, sums: &[Sum], stop: &AtomicBool) -> Result<()> {
    let total = sums.iter().map(|sum| sum.len as u64).sum();
    job.lane.begin("verify", Some(total));
    let mut memory = memory();
    let (first, rest) = sums.split_first().context("write the image: it is empty")?;
    for sum in rest {
        interrupted(stop)?;
        job.card.verify(sum, &mut memory)?;
        job.lane.advance(sum.len as u64);
    }
    job.card.finish()?;
    job.card.verify(first, &mut memory)?;
    job.lane.advance(first.len as u64);
    Ok(())
}

fn interrupted(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::new(INTERRUPTED, "interrupted").into());
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "pour_tests.rs"]
mod tests;
