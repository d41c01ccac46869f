//! Owns how results look: aligned tables, colour where a terminal wants it, JSON.

use std::io::IsTerminal;

use serde::Serialize;

use super::CommandError;

/// Prints a value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<(), CommandError> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| CommandError::System(error.into()))?;
    print(&text);
    Ok(())
}

/// Prints a value as JSON on one line.
pub(super) fn json_line<T: Serialize>(value: &T) -> Result<(), CommandError> {
    let text = serde_json::to_string(value).map_err(|error| CommandError::System(error.into()))?;
    print(&text);
    Ok(())
}

/// Prints a line or a text. A reader that has seen enough (`| head`) is no error.
pub(super) fn print(text: &str) {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{}", text.trim_end_matches('\n'));
}

/// A table with aligned columns.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![paint(Colour::Bold, &line(&mut header.iter().copied()))];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// What a colour means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    Bold,
    Good,
    Bad,
    Warning,
}

/// Colours a text for a terminal; `NO_COLOR` and pipes get none.
pub(super) fn paint(colour: Colour, text: &str) -> String {
    let wanted = std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
    if !wanted {
        return text.to_owned();
    }
    let code = match colour {
        Colour::Bold => "1",
        Colour::Good => "32",
        Colour::Bad => "31",
        Colour::Warning => "33",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Says on stderr what takes a while, when a person is watching.
pub(super) fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{text}");
    }
}
