// SPDX-License-Identifier: Apache-2.0
//! The power goes at 200 moments while the store is written: each time it opens again with what it held before or after
//! the commit that was cut, and takes changes. No file: the medium keeps every write, and loses what it was not asked to
//! flush, sector by sector.
#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};

use apicache::object::{Encoding, Kind, meta};
use apicache::request::Place;
use apicache::selector::Selector;
use apicache::store::{Answer, News, Op, Source, Store, mark};
use fastrand::Rng;
use redb::StorageBackend;

const CUTS: usize = 200;
/// A medium writes so many bytes whole.
const SECTOR: usize = 512;

enum Step {
    Write(usize, Vec<u8>),
    Length(usize),
    Sync,
}

/// A medium that remembers what was done to it.
#[derive(Default)]
struct Recorded {
    image: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Clone, Default)]
struct Medium(Arc<Mutex<Recorded>>);

impl std::fmt::Debug for Medium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Medium")
    }
}

impl Medium {
    fn holding(image: Vec<u8>) -> Self {
        Medium(Arc::new(Mutex::new(Recorded { image, steps: Vec::new() })))
    }

    fn steps(&self) -> usize {
        self.0.lock().unwrap().steps.len()
    }

    /// What it holds when the power goes after `count` steps. All up to the last flush is there. Of the rest, each sector
    /// and each change of length is or is not: few, half, almost all or all of them.
    fn cut(&self, count: usize, random: &mut Rng) -> Vec<u8> {
        let recorded = self.0.lock().unwrap();
        let steps = &recorded.steps[..count];
        let flushed = steps.iter().rposition(|step| matches!(step, Step::Sync)).map_or(0, |at| at + 1);
        let most = [0.1, 0.5, 0.95, 1.0][random.usize(..4)];
        let mut image = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let mut kept = || index < flushed || random.f64() < most;
            match step {
                Step::Length(length) if kept() => image.resize(*length, 0),
                Step::Write(offset, bytes) => {
                    for (number, sector) in bytes.chunks(SECTOR).enumerate() {
                        let at = offset + number * SECTOR;
                        if let Some(place) = image.get_mut(at..at + sector.len()).filter(|_| kept()) {
                            place.copy_from_slice(sector);
                        }
                    }
                }
                Step::Length(_) | Step::Sync => {}
            }
        }
        image
    }
}

impl StorageBackend for Medium {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (at, recorded) = (usize::try_from(offset).unwrap(), self.0.lock().unwrap());
        let bytes = recorded.image.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (length, mut recorded) = (usize::try_from(len).unwrap(), self.0.lock().unwrap());
        recorded.image.resize(length, 0);
        recorded.steps.push(Step::Length(length));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().unwrap().steps.push(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (at, mut recorded) = (usize::try_from(offset).unwrap(), self.0.lock().unwrap());
        recorded.image[at..at + data.len()].copy_from_slice(data);
        recorded.steps.push(Step::Write(at, data.to_vec()));
        Ok(())
    }
}

fn source(resource: &str) -> Arc<Source> {
    Arc::new(Source {
        identity: "node".into(),
        place: Place { group: "/api/v1".into(), resource: resource.into(), namespace: String::new() },
        selector: Selector::default(),
        encoding: Encoding::Json,
    })
}

fn kind() -> Kind {
    Kind { api_version: "v1".into(), kind: "Pod".into() }
}

fn object(name: &str, version: u64, random: &mut Rng) -> Vec<u8> {
    let text = "x".repeat(random.usize(..6000));
    let meta = format!("{{\"name\":\"{name}\",\"namespace\":\"ns\",\"resourceVersion\":\"{version}\"}}");
    format!("{{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{meta},\"text\":\"{text}\"}}").into_bytes()
}

/// All that a store holds.
type State = (Vec<(u64, Vec<(String, Vec<u8>)>)>, Option<Answer>, u64);

fn state(store: &Store) -> State {
    let collection = |resource: &str| {
        let source = source(resource);
        let all =
            store.covering(&source).first().map(|(id, ..)| store.snapshot().unwrap().page(id, None, 1000).unwrap());
        (store.version(&source), all.unwrap_or_default())
    };
    (["pods", "configmaps"].map(collection).to_vec(), store.answer(&[1; 32]), store.contact())
}

/// Whether a store that was opened holds what it held then. How far a watch had come is written with the next change: it
/// may say less, but not less than its newest object.
fn same(found: &State, held: &State) -> bool {
    let mut pairs = found.0.iter().zip(&held.0);
    let collections = pairs.all(|((version, objects), (known, all))| {
        let newest = objects.iter().filter_map(|(_, bytes)| Some(meta(Encoding::Json, bytes)?.version)).max();
        objects == all && version <= known && newest.unwrap_or(0) <= *version
    });
    collections && (&found.1, found.2) == (&held.1, held.2)
}

/// Changes a store for a while; the number of steps and the state after each flush.
async fn work(store: &Store, medium: &Medium, random: &mut Rng) -> Vec<(usize, State)> {
    let mut flushed = vec![(medium.steps(), state(store))];
    let mut versions = [0; 2];
    let mut next = 0;
    for _ in 0..60 {
        for _ in 0..random.usize(1..6) {
            next += 1;
            let collection = random.usize(..2);
            let of = source(["pods", "configmaps"][collection]);
            let name = format!("o{}", random.usize(..20));
            let (key, after) = (format!("ns/{name}"), versions[collection]);
            match random.usize(..12) {
                0 | 1 => {
                    let mut seen = std::collections::HashSet::new();
                    for number in 0..random.usize(..12) {
                        let (key, bytes) = (format!("ns/o{number}"), object(&format!("o{number}"), next, random));
                        seen.insert(mark(&key));
                        store.change(Op::Seen { to: of.clone(), list: next, kind: kind(), key, bytes }).await;
                    }
                    // One list of four is cut off: it changes nothing, now or later.
                    if random.usize(..4) > 0 {
                        store.change(Op::Complete { of, list: next, kind: kind(), version: next, seen }).await;
                        versions[collection] = next;
                    }
                }
                2 => {
                    let answer = Answer { content_type: "application/json".into(), body: object(&name, next, random) };
                    store.change(Op::Answer(None, [1; 32], answer)).await;
                }
                3 => drop(store.change(Op::Contact(next)).await),
                4 | 5 => {
                    store.change(Op::Event { of, after, version: next, news: News::Gone(key) }).await;
                    versions[collection] = next;
                }
                _ => {
                    let news = News::Put(kind(), key, object(&name, next, random));
                    store.change(Op::Event { of, after, version: next, news }).await;
                    versions[collection] = next;
                }
            }
        }
        store.flush().await;
        flushed.push((medium.steps(), state(store)));
    }
    flushed
}

#[tokio::test]
async fn the_power_goes_at_200_moments() {
    let mut random = Rng::with_seed(24);
    let medium = Medium::default();
    let store = Store::open_on(medium.clone(), false).unwrap();
    let flushed = work(&store, &medium, &mut random).await;
    let (first, steps) = (flushed[0].0, medium.steps());
    assert!(flushed.iter().any(|(_, (all, ..))| all[0].1.len() > 7 && all[1].1.len() > 7));
    let (mut before, mut after) = (0, 0);
    for number in 0..CUTS {
        // Every other one is at the end of a commit, where the new state may be there already.
        let ends = flushed[random.usize(1..flushed.len())].0 - random.usize(1..3);
        let cut = if number % 2 == 0 { random.usize(first..=steps) } else { ends.max(first) };
        let image = medium.cut(cut, &mut random);
        let again = Medium::holding(image);
        let opened = Store::open_on(again, false).unwrap_or_else(|e| panic!("cut {number} after {cut} steps: {e}"));
        let index = flushed.iter().rposition(|(at, _)| *at <= cut).unwrap();
        let found = state(&opened);
        if same(&found, &flushed[index].1) {
            before += 1;
        } else {
            let next = flushed.get(index + 1);
            assert!(
                next.is_some_and(|(_, state)| same(&found, state)),
                "cut {number} after {cut} steps: neither before nor after the commit"
            );
            after += 1;
        }
        // It goes on.
        let at = 1_000_000 + number as u64;
        opened.change(Op::Contact(at)).await;
        opened.flush().await;
        assert_eq!((opened.contact(), state(&opened).0), (at, found.0));
    }
    eprintln!("{steps} steps, {} commits; {before} cuts left the state before, {after} the one after", flushed.len());
    assert!(before > 0 && after > 0, "{before} {after}: both happen");
}
