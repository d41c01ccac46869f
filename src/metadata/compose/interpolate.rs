//! Owns replacing variables in a compose file's values, as if no variable were set.
//!
//! Pure: the environment is not read, so a file gives the same facts on every host.
//! Source of the syntax: the Compose specification, "Interpolation".

use crate::input::Text;

/// Defaults within defaults go this deep.
const MAX_DEPTH: usize = 16;

/// A `$` that begins nothing known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no variable; write ${{NAME}} or ${{NAME:-default}}")]
pub(super) struct InterpolationError(Text);

/// The text with `$NAME`, `${NAME}` and `${NAME:?…}` gone, `${NAME:-default}` replaced by the default, `${NAME:+…}` gone
/// and `$$` as a dollar sign.
pub(super) fn interpolate(text: &str) -> Result<String, InterpolationError> {
    within(text, MAX_DEPTH)
}

fn within(text: &str, depth: usize) -> Result<String, InterpolationError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let here = &rest[dollar..];
        let after = &here[1..];
        rest = if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            after
        } else if let Some(inside) = after.strip_prefix('{') {
            let end = closing_brace(inside).ok_or_else(|| InterpolationError(Text::new(here)))?;
            let (name, tail) = inside[..end].split_at(name_length(&inside[..end]));
            let default = tail.strip_prefix(":-").or_else(|| tail.strip_prefix('-'));
            let is_known = tail.is_empty()
                || default.is_some()
                || tail.trim_start_matches(':').starts_with(['?', '+']);
            if name.is_empty() || !is_known || depth == 0 {
                return Err(InterpolationError(Text::new(&here[..end + 3])));
            }
            out.push_str(&within(default.unwrap_or_default(), depth - 1)?);
            &inside[end + 1..]
        } else {
            match name_length(after) {
                0 => return Err(InterpolationError(Text::new(here))),
                length => &after[length..],
            }
        };
    }
    out.push_str(rest);
    Ok(out)
}

fn name_length(text: &str) -> usize {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match text.bytes().next() {
        Some(first) if first.is_ascii_digit() => 0,
        _ => text.bytes().take_while(|byte| is_name(*byte)).count(),
    }
}

/// Where the brace is that closes what was opened before `inside`.
fn closing_brace(inside: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut bytes = inside.bytes().enumerate().peekable();
    while let Some((offset, byte)) = bytes.next() {
        match byte {
            b'$' if bytes.peek().is_some_and(|(_, next)| *next == b'{') => depth += 1,
            b'}' if depth == 0 => return Some(offset),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_variables_become_their_defaults() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$$HOME", "$HOME"),
            ("a${X}b$Y_1-c", "ab-c"),
            ("${X:-nginx}:${TAG-1.27}", "nginx:1.27"),
            ("${A:-${B:-x}y}z", "xyz"),
            ("${A:?must be set}${B?x}${C:+x}${D+x}", ""),
            ("${A:-}", ""),
            ("größe ${A:-ö}", "größe ö"),
        ] {
            assert_eq!(interpolate(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_variable_is_an_error() {
        let deep = "${A:-".repeat(100) + &"}".repeat(100);
        for text in
            ["$", "$ x", "${", "${X", "${}", "${1}", "$1", "${X!}", "${X:-${Y}", "$é", &deep]
        {
            assert!(interpolate(text).is_err(), "{text}");
        }
    }
}
