// SPDX-License-Identifier: Apache-2.0
//! As much of Protocol Buffers' wire format as Kubernetes objects need: fields of a message one after the other, and
//! fields to be written (<https://protobuf.dev/programming-guides/encoding/>).

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Number(u64),
    /// Wire type 2: text, bytes or a message.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5, which nothing here reads.
    Fixed,
}

impl<'a> Value<'a> {
    /// Bytes of a field of wire type 2.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// A base-128 number at the start of `from`, which is then what follows. None where it does not end, or is over 64 bits.
fn number(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// How a field begins: its number, the length of what comes before its value, and that of the value. The number is 0 for
/// one of another wire type than 2, whose value nothing here reads. None where more has to come, or it is none.
pub fn start(bytes: &[u8]) -> Option<(u64, usize, usize)> {
    let mut rest = bytes;
    let key = number(&mut rest)?;
    let before = bytes.len() - rest.len();
    Some(match key & 7 {
        0 => {
            number(&mut rest)?;
            (0, before, bytes.len() - rest.len() - before)
        }
        1 => (0, before, 8),
        2 => {
            let length = usize::try_from(number(&mut rest)?).ok()?;
            (key >> 3, bytes.len() - rest.len(), length)
        }
        5 => (0, before, 4),
        _ => return None,
    })
}

/// All fields of a message in order, as number and value.
///
/// None where it is no message: a length beyond its end, a number that does not end, a group.
pub fn fields(mut message: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut all = Vec::new();
    while !message.is_empty() {
        let key = number(&mut message)?;
        let value = match key & 7 {
            0 => Value::Number(number(&mut message)?),
            2 => {
                let length = usize::try_from(number(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Value::Bytes(bytes)
            }
            kind @ (1 | 5) => {
                message = message.get(if kind == 1 { 8 } else { 4 }..)?;
                Value::Fixed
            }
            _ => return None,
        };
        all.push((key >> 3, value));
    }
    Some(all)
}

/// The last value of a field of wire type 2, as for a field that is not repeated. None where the message cannot be read
/// or has no such field.
pub fn field(message: &[u8], wanted: u64) -> Option<&[u8]> {
    fields(message)?.into_iter().rev().find(|(number, _)| *number == wanted)?.1.bytes()
}

/// The same as text; empty where it is absent or no UTF-8.
pub fn text(message: &[u8], wanted: u64) -> &str {
    field(message, wanted).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
}

/// A field that is a `map<string, string>`.
pub fn map(message: &[u8], wanted: u64) -> Vec<(String, String)> {
    let entries = fields(message).unwrap_or_default().into_iter().filter(|(number, _)| *number == wanted);
    entries.filter_map(|(_, v)| v.bytes()).map(|entry| (text(entry, 1).to_owned(), text(entry, 2).to_owned())).collect()
}

fn push_number(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
        value >>= 7;
    }
    to.push(u8::try_from(value).unwrap_or_default());
}

/// Adds a field of wire type 2.
pub fn push(to: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    push_head(to, field, bytes.len());
    to.extend_from_slice(bytes);
}

/// Adds what comes before the `length` bytes of a field of wire type 2.
pub fn push_head(to: &mut Vec<u8>, field: u64, length: usize) {
    push_number(to, field << 3 | 2);
    push_number(to, length as u64);
}

/// Adds a field of wire type 0.
pub fn push_varint(to: &mut Vec<u8>, field: u64, value: u64) {
    push_number(to, field << 3);
    push_number(to, value);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let mut message = Vec::new();
        push(&mut message, 1, b"name");
        push_varint(&mut message, 2, u64::MAX);
        push(&mut message, 300, &[7; 300]);
        let read = fields(&message).unwrap();
        assert_eq!(read[0], (1, Value::Bytes(b"name")));
        assert_eq!(read[1], (2, Value::Number(u64::MAX)));
        assert_eq!(read[2], (300, Value::Bytes(&[7; 300])));
        assert_eq!(text(&message, 1), "name");
        for cut in 1..message.len() {
            // A cut between two fields is a message, too; none panics.
            fields(&message[..cut]);
        }
    }

    #[test]
    fn what_is_no_message() {
        for bad in
            [&b"\x0a\x05ab"[..], b"\x80", b"\x0b", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x09abc"]
        {
            assert_eq!(fields(bad), None, "{bad:x?}");
        }
    }
}
