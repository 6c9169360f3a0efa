// SPDX-License-Identifier: Apache-2.0
//! Resolves bytes that are escaped as a mark and a number of digits: `%20`, `\\040`. Pure.

/// Replaces each `mark` that is followed by `digits` digits in base `radix` with the byte of that number. A mark
/// without such digits stays. Invalid UTF-8 in the result is replaced.
pub(crate) fn resolved(text: &str, mark: u8, digits: usize, radix: u32) -> String {
    String::from_utf8_lossy(&resolved_bytes(text, mark, digits, radix)).into_owned()
}

/// As [`resolved`], the bytes as they are.
pub(crate) fn resolved_bytes(text: &str, mark: u8, digits: usize, radix: u32) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..digits).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, radix).ok());
        match code {
            Some(code) if first == mark => {
                out.push(code);
                rest = &after[digits..];
            }
            _ => {
                out.push(first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::resolved;

    #[test]
    fn only_marks_with_digits_are_resolved() {
        assert_eq!(resolved("a%20b%2", b'%', 2, 16), "a b%2");
        assert_eq!(resolved("/x\\040y\\09", b'\\', 3, 8), "/x y\\09");
        assert_eq!(resolved("20%zz", b'%', 2, 16), "20%zz");
    }
}
