//! Owns [`Text`]: a string from outside that is safe on a terminal, in a log line and in a rule comment.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest text kept, in characters; what is cut off is shown as `…`.
pub const MAX_CHARS: usize = 256;

/// A string from outside, made harmless once, when it is built.
///
/// Control characters, line and paragraph separators, and the characters that reorder or hide text
/// (bidirectional controls, zero-width characters) become visible escapes such as `\u{1b}`;
/// text longer than [`MAX_CHARS`] is cut. Two inputs that differ only past the cut become equal.
/// Copies share what they hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize)]
#[serde(transparent)]
pub struct Text(Arc<str>);

impl Text {
    /// Makes any string harmless.
    pub fn new(raw: &str) -> Self {
        let mut out = String::with_capacity(raw.len().min(MAX_CHARS));
        for (index, character) in raw.chars().enumerate() {
            if index == MAX_CHARS {
                out.push('…');
                break;
            }
            if is_harmful(character) {
                out.extend(character.escape_unicode());
            } else {
                out.push(character);
            }
        }
        Self(out.into())
    }

    /// Makes bytes harmless; bytes that are not UTF-8 become U+FFFD.
    pub fn from_bytes(raw: &[u8]) -> Self {
        Self::new(&String::from_utf8_lossy(raw))
    }

    /// The harmless string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Characters that act on a terminal or a reader instead of being read.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<&str> for Text {
    fn from(raw: &str) -> Self {
        Self::new(raw)
    }
}

impl From<String> for Text {
    fn from(raw: String) -> Self {
        Self::new(&raw)
    }
}

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|raw| Self::new(&raw))
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_line_breaks_become_visible() {
        let text = Text::new("a\u{1b}[31mred\nb\r\u{202e}c");
        assert_eq!(text, "a\\u{1b}[31mred\\u{a}b\\u{d}\\u{202e}c");
    }

    #[test]
    fn a_ten_kilobyte_value_is_cut() {
        let text = Text::new(&"x".repeat(10_000));
        assert_eq!(text.as_str().chars().count(), MAX_CHARS + 1);
        assert!(text.as_str().ends_with('…'));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(Text::from_bytes(b"a\xff\xfe"), "a\u{fffd}\u{fffd}");
    }

    #[test]
    fn ordinary_text_of_any_script_is_untouched() {
        assert_eq!(Text::new("shop/web (nginx) – größe 港"), "shop/web (nginx) – größe 港");
    }
}
