// SPDX-License-Identifier: Apache-2.0
//! A list on its way, item by item: of the largest one no more is in memory than the item that is just coming.

use serde::Deserialize;

use crate::object::{Encoding, JsonHead, JsonItems, Kind, MAGIC, MAX_FRAME, Object, item_kind};
use crate::object::{json_object, protobuf_object};
use crate::wire;

/// Longest text of a list beside its items.
const LONGEST_HEAD: usize = 64 << 10;
/// Longest start of a field: its number, and the length of what follows.
const FIELD_START: usize = 20;

/// What a list says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListHead {
    /// Type of its items.
    pub kind: Kind,
    /// The state of the cluster that it shows.
    pub version: u64,
    /// Where the next page begins, if there is one.
    pub next: String,
}

/// Reads a list as its bytes come.
pub enum ListReader {
    /// In JSON.
    Json(JsonList),
    /// In protobuf.
    Protobuf(ProtobufList),
}

impl ListReader {
    /// At the start of an answer.
    pub fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => ListReader::Json(JsonList::default()),
            Encoding::Protobuf => ListReader::Protobuf(ProtobufList::default()),
        }
    }

    /// Adds bytes, and hands over each item that they complete, with its type. None once this is no list of objects.
    pub fn push(&mut self, bytes: &[u8], see: impl FnMut(Kind, Object<'_>)) -> Option<()> {
        match self {
            ListReader::Json(list) => list.push(bytes, see),
            ListReader::Protobuf(list) => list.push(bytes, see),
        }
    }

    /// At the end of an answer. None where it was cut short, or is no list.
    pub fn end(self) -> Option<ListHead> {
        match self {
            ListReader::Json(list) => list.end(),
            ListReader::Protobuf(list) => list.end(),
        }
    }
}

/// Whether that is an object: what has no name and no version is none (a table has rows instead).
fn is_proper(object: &Object<'_>) -> bool {
    !object.meta.name.is_empty() && object.meta.version > 0
}

/// A list in JSON: what is between its items is kept, with an empty list in their place.
#[derive(Default)]
pub struct JsonList {
    head: Vec<u8>,
    item: Vec<u8>,
    /// Type of the items, where it comes before them: a list of custom resources has it at its end, and each of its items
    /// has its own.
    kind: Option<Kind>,
    depth: usize,
    in_string: bool,
    escaped: bool,
    in_items: bool,
}

#[derive(Deserialize)]
struct JsonKind {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    kind: String,
}

impl JsonList {
    fn push(&mut self, bytes: &[u8], mut see: impl FnMut(Kind, Object<'_>)) -> Option<()> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if self.in_string && !self.escaped {
                // Most of a list is in its strings.
                let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(rest.len());
                if plain > 0 {
                    let (text, after) = rest.split_at(plain);
                    self.text(self.depth).extend_from_slice(text);
                    rest = after;
                    continue;
                }
            }
            rest = after;
            self.byte(byte, &mut see)?;
        }
        (self.head.len() <= LONGEST_HEAD && self.item.len() <= MAX_FRAME).then_some(())
    }

    /// Where the bytes at this depth go.
    fn text(&mut self, depth: usize) -> &mut Vec<u8> {
        if self.in_items && depth > 2 { &mut self.item } else { &mut self.head }
    }

    fn byte(&mut self, byte: u8, see: &mut impl FnMut(Kind, Object<'_>)) -> Option<()> {
        let depth = self.depth;
        if self.in_string {
            self.text(depth).push(byte);
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return Some(());
        }
        let between = self.in_items && depth == 2;
        match byte {
            b'{' | b'[' => {
                let named = |before: &[u8]| self.head.ends_with(before);
                if byte == b'[' && depth == 1 && (named(b"{\"items\":") || named(b",\"items\":")) {
                    self.in_items = true;
                    let head = [&self.head[..], b"[]}"].concat();
                    let JsonKind { api_version, kind } = serde_json::from_slice(&head).ok()?;
                    self.kind = item_kind(Kind { api_version, kind });
                }
                self.depth += 1;
                self.text(depth + 1).push(byte);
            }
            b'}' | b']' => {
                self.depth = depth.checked_sub(1)?;
                self.text(depth).push(byte);
                if self.in_items && depth == 3 {
                    let item = std::mem::take(&mut self.item);
                    let (kind, object) = json_object(&item, self.kind.as_ref())?;
                    if kind.kind.is_empty() || !is_proper(&object) {
                        return None;
                    }
                    see(kind, object);
                }
                self.in_items &= depth != 2;
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' if between => {}
            _ if between => return None,
            // White space between a name and its value would hide `items`.
            b' ' | b'\t' | b'\n' | b'\r' if !(self.in_items && depth > 2) => {}
            _ => {
                self.in_string = byte == b'"';
                self.text(depth).push(byte);
            }
        }
        Some(())
    }

    fn end(self) -> Option<ListHead> {
        let head: JsonHead = serde_json::from_slice(&self.head).ok()?;
        let _: JsonItems = serde_json::from_slice(&self.head).ok()?;
        let kind = item_kind(Kind { api_version: head.api_version, kind: head.kind })?;
        Some(ListHead { kind, version: head.metadata.version.parse().ok()?, next: head.metadata.next })
    }
}

/// A list in protobuf.
#[derive(Default)]
pub struct ProtobufList {
    pending: Vec<u8>,
    place: Place,
    kind: Option<Kind>,
    version: Option<u64>,
    next: String,
}

/// What is coming of a list in protobuf.
#[derive(Default, Clone, Copy)]
enum Place {
    #[default]
    Magic,
    /// Fields of the envelope.
    Envelope,
    /// Fields of the list, of which so many bytes are left.
    List(usize),
}

impl ProtobufList {
    fn push(&mut self, bytes: &[u8], mut see: impl FnMut(Kind, Object<'_>)) -> Option<()> {
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(used) = self.part(&pending[at..], &mut see)? {
            at += used;
        }
        pending.drain(..at);
        self.pending = pending;
        Some(())
    }

    /// Takes the next part, and says how many bytes it had; none inside where it has not come yet.
    fn part(&mut self, bytes: &[u8], see: &mut impl FnMut(Kind, Object<'_>)) -> Option<Option<usize>> {
        let left = match self.place {
            Place::Magic if bytes.len() < MAGIC.len() => return MAGIC.starts_with(bytes).then_some(None),
            Place::Magic => {
                self.place = Place::Envelope;
                return bytes.starts_with(MAGIC).then_some(Some(MAGIC.len()));
            }
            Place::List(0) => {
                self.place = Place::Envelope;
                return Some(Some(0));
            }
            Place::List(left) => Some(left),
            Place::Envelope => None,
        };
        let Some((number, start, length)) = wire::start(bytes) else {
            return (bytes.len() < FIELD_START).then_some(None);
        };
        if left.is_none() && number == 2 {
            // All of the list is in this field: its own fields come one by one.
            self.place = Place::List(length);
            return self.kind.is_some().then_some(Some(start));
        }
        let whole = start.checked_add(length)?;
        if length > MAX_FRAME || left.is_some_and(|left| whole > left) {
            return None;
        }
        let Some(field) = bytes.get(start..whole) else { return Some(None) };
        match (left, number) {
            (None, 1) => {
                let kind = Kind { api_version: wire::text(field, 1).into(), kind: wire::text(field, 2).into() };
                self.kind = Some(item_kind(kind)?);
            }
            // What is in the envelope is compressed.
            (None, 3) if !field.is_empty() => return None,
            (Some(_), 1) => {
                self.version = Some(wire::text(field, 2).parse().ok()?);
                self.next = wire::text(field, 3).to_owned();
            }
            (Some(_), 2) => {
                let object = protobuf_object(field).filter(is_proper)?;
                see(self.kind.clone()?, object);
            }
            _ => {}
        }
        self.place = left.map_or(Place::Envelope, |left| Place::List(left - whole));
        Some(Some(whole))
    }

    fn end(self) -> Option<ListHead> {
        let ended = self.pending.is_empty() && matches!(self.place, Place::Envelope | Place::List(0));
        let (kind, version) = (self.kind?, self.version?);
        ended.then_some(ListHead { kind, version, next: self.next })
    }
}

/// A list of kept objects that is written item by item, after a start that says how long it will be.
pub struct ListWriter {
    encoding: Encoding,
    length: usize,
    first: bool,
}

impl ListWriter {
    /// A list without items so far.
    pub fn new(encoding: Encoding) -> Self {
        ListWriter { encoding, length: 0, first: true }
    }

    /// Says that this object will be in it.
    pub fn announce(&mut self, kept: &[u8]) {
        if self.encoding == Encoding::Protobuf {
            let mut start = Vec::new();
            wire::push_head(&mut start, 2, kept.len());
            self.length += start.len() + kept.len();
        }
    }

    /// What comes before the items, of this type and in this state of the cluster.
    pub fn start(&self, kind: &Kind, version: u64) -> Vec<u8> {
        let Kind { api_version, kind } = kind;
        if self.encoding == Encoding::Json {
            let meta = format!("{{\"resourceVersion\":\"{version}\"}}");
            let list =
                format!("{{\"kind\":\"{kind}List\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"items\":[");
            return list.into_bytes();
        }
        let (mut head, mut version_of, mut meta) = (Vec::new(), Vec::new(), Vec::new());
        wire::push(&mut head, 1, api_version.as_bytes());
        wire::push(&mut head, 2, format!("{kind}List").as_bytes());
        wire::push(&mut version_of, 2, version.to_string().as_bytes());
        wire::push(&mut meta, 1, &version_of);
        let mut start = MAGIC.to_vec();
        wire::push(&mut start, 1, &head);
        wire::push_head(&mut start, 2, meta.len() + self.length);
        start.extend_from_slice(&meta);
        start
    }

    /// The next item, which was announced.
    pub fn item(&mut self, kept: &[u8]) -> Vec<u8> {
        let mut item = Vec::with_capacity(kept.len() + FIELD_START);
        match self.encoding {
            Encoding::Json if std::mem::take(&mut self.first) => {}
            Encoding::Json => item.push(b','),
            Encoding::Protobuf => wire::push_head(&mut item, 2, kept.len()),
        }
        item.extend_from_slice(kept);
        item
    }

    /// What comes after the items.
    pub fn end(&self) -> Vec<u8> {
        match self.encoding {
            Encoding::Json => b"]}".to_vec(),
            Encoding::Protobuf => {
                let mut end = Vec::new();
                wire::push(&mut end, 3, b"");
                wire::push(&mut end, 4, b"");
                end
            }
        }
    }
}

/// A list of kept objects as a whole.
pub fn write_list(encoding: Encoding, kind: &Kind, version: u64, items: &[Vec<u8>]) -> Vec<u8> {
    let mut list = ListWriter::new(encoding);
    items.iter().for_each(|item| list.announce(item));
    let mut body = list.start(kind, version);
    items.iter().for_each(|item| body.extend(list.item(item)));
    body.extend(list.end());
    body
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
