// SPDX-License-Identifier: Apache-2.0
//! Lists that come in pieces, in every form that servers write, cut short and made up.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::object::read_list;

fn kind() -> Kind {
    Kind { api_version: "v1".into(), kind: "Pod".into() }
}

fn object(encoding: Encoding, name: &str, version: u64) -> Vec<u8> {
    if encoding == Encoding::Json {
        // What a list must not be misled by.
        let text = r#"{\"items\":[\\\"]}{[\\"#;
        let meta = format!(r#"{{"name":"{name}","resourceVersion":"{version}","annotations":{{"a":"{text}"}}}}"#);
        return format!(r#"{{"kind":"Pod","apiVersion":"v1","metadata":{meta},"items":[[{{}}], {{}}]}}"#).into_bytes();
    }
    let (mut meta, mut message) = (Vec::new(), Vec::new());
    wire::push(&mut meta, 1, name.as_bytes());
    wire::push(&mut meta, 6, version.to_string().as_bytes());
    wire::push(&mut message, 1, &meta);
    wire::push(&mut message, 2, &vec![7; 300]);
    wire::push_varint(&mut message, 3, 5);
    message
}

/// Items, as type, name and bytes, and what the list says of itself.
type Read = (Vec<(Kind, String, Vec<u8>)>, Option<ListHead>);

fn in_pieces(encoding: Encoding, body: &[u8], piece: usize) -> Read {
    let mut list = ListReader::new(encoding);
    let mut items = Vec::new();
    for bytes in body.chunks(piece) {
        let see = |kind, item: Object<'_>| items.push((kind, item.meta.name.clone(), item.bytes.into_owned()));
        if list.push(bytes, see).is_none() {
            return (items, None);
        }
    }
    (items, list.end())
}

#[test]
fn a_list_is_the_same_in_pieces_and_as_a_whole() {
    for encoding in [Encoding::Json, Encoding::Protobuf] {
        for count in [0, 1, 3] {
            let kept: Vec<_> = (0..count).map(|n| object(encoding, &format!("o{n}"), n + 1)).collect();
            let body = write_list(encoding, &kind(), 9, &kept);
            let whole = read_list(encoding, &body).unwrap();
            let names = whole.items.iter().map(|item| item.meta.name.clone());
            let items: Vec<_> = names.zip(kept).map(|(name, bytes)| (kind(), name, bytes)).collect();
            let head = ListHead { kind: whole.kind, version: whole.version, next: whole.next };
            assert_eq!(head, ListHead { kind: kind(), version: 9, next: String::new() });
            for piece in 1..=body.len() {
                assert_eq!(in_pieces(encoding, &body, piece), (items.clone(), Some(head.clone())), "{piece}");
            }
            let least = body.len() - if encoding == Encoding::Json { 0 } else { 4 };
            for length in 0..least {
                assert_eq!(
                    in_pieces(encoding, &body[..length], 64).1,
                    None,
                    "{encoding:?}: {length} of {}",
                    body.len()
                );
            }
        }
    }
}

#[test]
fn forms_of_lists_in_json() {
    let read = |text: &str| in_pieces(Encoding::Json, text.as_bytes(), 5);
    let head = |next: &str| Some(ListHead { kind: kind(), version: 9, next: next.into() });
    let item = |bytes: &str| (kind(), "a".to_owned(), bytes.as_bytes().to_vec());
    let own = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"3"}}"#;
    let bare = r#"{"metadata":{"name":"a","resourceVersion":"3"}}"#;
    let first = r#""kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"9","continue":"more"}"#;
    assert_eq!(read(&format!("{{{first},\"items\":[{bare}]}}\n")), (vec![item(own)], head("more")));
    // As lists of custom resources are written: by the names of the fields.
    let last = r#""kind":"PodList","metadata":{"resourceVersion":"9"}"#;
    let sorted = |item: &str| format!("{{\"apiVersion\":\"v1\",\"items\":[{item}],{last}}}");
    assert_eq!(read(&sorted(own)), (vec![item(own)], head("")));
    assert_eq!(read(&sorted(bare)), (vec![], None), "of which type it is comes too late");
    // For a person to read.
    let spaced = format!("{{\n {first} ,\n \"items\" : [\n {own} ,\n {own}\n ]\n}}");
    assert_eq!(read(&spaced), (vec![item(own); 2], head("more")));
    for empty in ["", ",\"items\":null", ",\"items\":[]"] {
        assert_eq!(read(&format!("{{{first}{empty}}}")), (vec![], head("more")), "{empty}");
    }
    let bad = ["\"a\"", "1", "[]", r#"{"metadata":{"name":"a"}}"#, r#"{"metadata":{"resourceVersion":"3"}}"#, "{}"];
    for item in bad {
        assert_eq!(read(&format!("{{{first},\"items\":[{item}]}}")), (vec![], None), "{item}");
    }
    for end in ["", "]", "]]", "]}}", "]}{", "],\"items\":[]}"] {
        assert_eq!(read(&format!("{{{first},\"items\":[{own}{end}")).1, None, "{end}");
    }
}

#[test]
fn what_is_compressed_or_without_a_type_is_no_list_in_protobuf() {
    let body = write_list(Encoding::Protobuf, &kind(), 9, &[object(Encoding::Protobuf, "a", 3)]);
    let read = |body: &[u8]| in_pieces(Encoding::Protobuf, body, 7).1;
    assert!(read(&body).is_some());
    let mut compressed = body[..body.len() - 4].to_vec();
    wire::push(&mut compressed, 3, b"gzip");
    assert_eq!(read(&compressed), None);
    let mut without_type = MAGIC.to_vec();
    wire::push(&mut without_type, 2, b"");
    assert_eq!(read(&without_type), None);
    let mut no_list = MAGIC.to_vec();
    wire::push(&mut no_list, 1, b"\x0a\x02v1\x12\x03Pod");
    wire::push(&mut no_list, 2, b"");
    assert_eq!(read(&no_list), None);
}

#[test]
fn an_item_without_end_is_given_up() {
    let mut list = ListReader::new(Encoding::Json);
    let none = |_, _: Object<'_>| panic!("an item");
    list.push(b"{\"kind\":\"PodList\",\"items\":[{\"a\":\"", none).unwrap();
    let megabyte = vec![b'x'; 1 << 20];
    assert_eq!((0..10).take_while(|_| list.push(&megabyte, none).is_some()).count(), 3, "MiB and its start");
}
