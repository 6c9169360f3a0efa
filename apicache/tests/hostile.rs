// SPDX-License-Identifier: Apache-2.0
//! Answers and requests that are cut, changed or made up: nothing panics, and no part of an answer passes for a whole.
#![allow(clippy::unwrap_used)]

use apicache::list::{ListReader, write_list};
use apicache::object::{
    Change, Encoding, Frames, Kind, Object, read, read_event, read_list, write, write_event, write_initial_events_end,
};
use apicache::request::{query, question, target};
use apicache::selector::Selector;
use apicache::{questions, request, wire};
use fastrand::Rng;
use hyper::{Method, Uri};

const ROUNDS: usize = 20_000;

fn kind() -> Kind {
    Kind { api_version: "v1".into(), kind: "Pod".into() }
}

fn object(encoding: Encoding, name: &str, version: u64) -> Vec<u8> {
    if encoding == Encoding::Json {
        let meta = format!("{{\"name\":\"{name}\",\"resourceVersion\":\"{version}\",\"labels\":{{\"a\":\"b\"}}}}");
        return format!("{{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{meta}}}").into_bytes();
    }
    let (mut label, mut meta, mut message) = (Vec::new(), Vec::new(), Vec::new());
    wire::push(&mut label, 1, b"a");
    wire::push(&mut label, 2, b"b");
    wire::push(&mut meta, 1, name.as_bytes());
    wire::push(&mut meta, 6, version.to_string().as_bytes());
    wire::push(&mut meta, 11, &label);
    wire::push(&mut message, 1, &meta);
    message
}

#[test]
fn a_list_that_is_cut_anywhere_is_none() {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let items: Vec<_> = (1..4).map(|n| object(encoding, &format!("o{n}"), n)).collect();
        let whole = write_list(encoding, &kind(), 9, &items);
        let list = read_list(encoding, &whole).unwrap();
        assert_eq!((list.kind, list.version, list.items.len()), (kind(), 9, 3));
        assert_eq!(list.items[1].meta.labels["a"], "b");
        // In protobuf the envelope ends with two empty fields, of four bytes together: without them it says the same.
        let least = whole.len() - if encoding == Encoding::Json { 0 } else { 4 };
        for length in 0..least {
            assert!(read_list(encoding, &whole[..length]).is_none(), "{encoding:?}: {length} of {}", whole.len());
        }
    }
}

#[test]
fn events_are_the_same_however_they_are_cut() {
    let mut random = Rng::with_seed(1);
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        let put = write_event(encoding, "ADDED", &kind(), &object(encoding, "o1", 5));
        let gone = write_event(encoding, "DELETED", &kind(), &object(encoding, "o1", 6));
        let all = [put, gone, write_initial_events_end(encoding, &kind(), 7)].concat();
        for _ in 0..200 {
            let (mut frames, mut rest, mut seen) = (Frames::new(encoding), &all[..], Vec::new());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.usize(1..=rest.len().min(40)));
                let see = |frame: &[u8]| {
                    let event = read_event(encoding, frame).unwrap();
                    seen.push((event.change, event.object.meta.version, event.object.meta.initial_events_end));
                };
                frames.push(piece, see).unwrap();
                rest = after;
            }
            let want = [(Change::Added, 5, false), (Change::Delete, 6, false), (Change::Bookmark, 7, true)];
            assert_eq!(seen, want);
        }
    }
}

#[test]
fn a_frame_without_end_is_given_up() {
    let mut frames = Frames::new(Encoding::Json);
    let megabyte = vec![b' '; 1 << 20];
    let taken = (0..10).take_while(|_| frames.push(&megabyte, |_| panic!("a frame")).is_some()).count();
    assert_eq!(taken, 4, "MiB");
    for (announced, taken) in [([0, 0x40, 0, 0], true), ([0, 0x40, 0, 1], false), ([0xff; 4], false)] {
        let mut frames = Frames::new(Encoding::Protobuf);
        assert_eq!(frames.push(&announced, |_| panic!("a frame")).is_some(), taken, "{announced:x?}");
    }
}

#[test]
fn made_up_bytes() {
    let mut random = Rng::with_seed(2);
    let models: Vec<(Encoding, Vec<u8>)> = [Encoding::Json, Encoding::Protobuf]
        .into_iter()
        .flat_map(|encoding| {
            let one = object(encoding, "o1", 5);
            [
                (encoding, write(encoding, &kind(), &one)),
                (encoding, write_list(encoding, &kind(), 9, &[one.clone(), one.clone()])),
                (encoding, write_event(encoding, "ADDED", &kind(), &one)),
            ]
        })
        .collect();
    let mut read_again = 0;
    for round in 0..ROUNDS {
        let (encoding, model) = &models[round % models.len()];
        let mut bytes = model.clone();
        for _ in 0..random.usize(1..5) {
            match random.usize(..4) {
                0 => bytes.truncate(random.usize(..=bytes.len())),
                1 => bytes.insert(random.usize(..=bytes.len()), random.u8(..)),
                _ if bytes.is_empty() => {}
                2 => drop(bytes.remove(random.usize(..bytes.len()))),
                _ => {
                    let at = random.usize(..bytes.len());
                    bytes[at] = random.u8(..);
                }
            }
        }
        read_again += usize::from(read(*encoding, &bytes).is_some());
        let mut reader = ListReader::new(*encoding);
        let mut names = Vec::new();
        let see = |_, item: Object<'_>| names.push((item.meta.name.clone(), item.meta.version));
        let read_to_its_end = reader.push(&bytes, see).is_some() && reader.end().is_some();
        assert!(names.iter().all(|(name, version)| !name.is_empty() && *version > 0), "{read_to_its_end}");
        if let Some(list) = read_list(*encoding, &bytes) {
            assert!(list.items.iter().all(|item| !item.meta.name.is_empty() && item.meta.version > 0));
        }
        let _ = (read_event(*encoding, &bytes), wire::fields(&bytes), questions::token(*encoding, &bytes));
        let _ = (questions::renewed(*encoding, &bytes, 1), questions::for_api_server(&bytes));
        for question in [request::Question::Token, request::Question::TokenReview, request::Question::AccessReview] {
            let _ = questions::kept(question, *encoding, &bytes);
        }
        let _ = Frames::new(*encoding).push(&bytes, |frame| drop(read_event(*encoding, frame)));
    }
    assert!(read_again > ROUNDS / 50, "{read_again}: most must not fail at their first byte");
}

#[test]
fn made_up_requests() {
    let mut random = Rng::with_seed(3);
    let parts = [
        "/",
        "api",
        "apis",
        "v1",
        "namespaces",
        "pods",
        "%",
        "%2",
        "%zz",
        "%2F",
        "..",
        "?",
        "&",
        "=",
        "watch",
        "true",
        "(",
        ")",
        ",",
        "!",
        " in ",
        "fieldSelector=",
        "labelSelector=",
        "resourceVersion=",
        "18446744073709551616",
        "-1",
        "x",
        "+",
    ];
    let mut paths = 0;
    for _ in 0..ROUNDS {
        let text: String = (0..random.usize(1..12)).map(|_| parts[random.usize(..parts.len())]).collect();
        let selector = Selector::new(&text, &text);
        assert_eq!(Selector::parse(&selector.text()), selector, "{text:?}");
        let _ = selector.selects(&apicache::object::Meta::default());
        let Ok(uri) = format!("/{text}").parse::<Uri>() else { continue };
        paths += 1;
        let found = target(&uri);
        let _ = (query(&uri), question(&Method::POST, &found));
        if let request::Target::Object(place, name) = found {
            let proper = |part: &str| !part.contains(['/', '%']) && part != "..";
            assert!(proper(&place.resource) && proper(&place.namespace) && proper(&name), "{uri}");
        }
    }
    assert!(paths > ROUNDS / 4, "{paths}");
}
