//! Owns how a problem in a file is told: stable code, place, message and what to do.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A place in a file: line and column count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Place {
    /// The file as it was named to seawall (`models.toml` for the embedded catalogue).
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
}

impl Place {
    /// The place of a byte offset in `source`, the whole text of `file`.
    pub fn of(file: &Path, source: &str, offset: usize) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            file: file.to_path_buf(),
            line: count(before.matches('\n').count() + 1),
            column: count(before[line_start..].chars().count() + 1),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// One problem of one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Diagnostic {
    /// Where.
    pub place: Place,
    /// A stable code such as `catalogue/unknown-service`, for scripts and for looking up.
    pub code: &'static str,
    /// What is wrong, in one sentence, already harmless to print.
    pub message: String,
    /// What to do about it, when there is something to say.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: error[{}]: {}", self.place, self.code, self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n    help: {help}")?;
        }
        Ok(())
    }
}

/// All problems found so far. Reading a file goes on after a problem, so that all are reported at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// No problems yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a problem.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Takes over another file's problems.
    pub fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The problems, ordered by place.
    pub fn sorted(mut self) -> Vec<Diagnostic> {
        self.0.sort();
        self.0
    }

    /// The problems as they were found.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// `value` if there are no problems, else the problems.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.clone().sorted().iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// One text file and how to report problems in it.
#[derive(Clone, Copy, Debug)]
pub struct SourceFile<'a> {
    /// The file's name, as reported.
    pub name: &'a Path,
    /// Its whole text.
    pub text: &'a str,
}

impl SourceFile<'_> {
    /// The place where a span (byte range) starts.
    pub fn place(&self, span: &Range<usize>) -> Place {
        Place::of(self.name, self.text, span.start)
    }

    /// A problem at a span.
    pub fn problem(
        &self,
        span: &Range<usize>,
        code: &'static str,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic { place: self.place(span), code, message: message.into(), help: None }
    }
}

impl Diagnostic {
    /// The same problem with advice.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a = 1\nbö = 2\n";
        let place = Place::of(Path::new("x.toml"), text, text.find('=').unwrap());
        assert_eq!(place.to_string(), "x.toml:1:3");
        let place = Place::of(Path::new("x.toml"), text, text.rfind('=').unwrap());
        assert_eq!(place.to_string(), "x.toml:2:4");
    }
}
