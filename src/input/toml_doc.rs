//! Owns reading TOML files so that every value keeps its place and every problem is reported at once.
//!
//! A reader asks a [`Section`] for the keys it knows, then calls [`Section::finish`], which reports all others.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostics, SourceFile};

/// A value and the bytes of the file it stands at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Byte range in the file.
    pub span: Range<usize>,
}

/// A parsed file. What could not be parsed is among the problems; the rest is still readable.
pub struct Document<'a> {
    file: SourceFile<'a>,
    root: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Parses `file`, noting each syntax error as `file/syntax`.
    pub fn parse(file: SourceFile<'a>, problems: &mut Diagnostics) -> Self {
        let (root, errors) = DeTable::parse_recoverable(file.text);
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            problems.push(file.problem(&span, "file/syntax", error.message().to_owned()));
        }
        Self { file, root }
    }

    /// The top level of the file.
    pub fn root(&self) -> Section<'_> {
        Section::new(self.file, self.root.get_ref(), self.root.span(), String::new())
    }
}

/// One table of a file, read key by key.
pub struct Section<'d> {
    file: SourceFile<'d>,
    table: &'d DeTable<'d>,
    span: Range<usize>,
    path: String,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'d> Section<'d> {
    fn new(file: SourceFile<'d>, table: &'d DeTable<'d>, span: Range<usize>, path: String) -> Self {
        Self { file, table, span, path, known: RefCell::default() }
    }

    /// The file, for reporting further problems.
    pub fn file(&self) -> SourceFile<'d> {
        self.file
    }

    /// The bytes this table stands at.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// All keys with their places, for tables whose keys are names.
    pub fn keys(&self) -> impl Iterator<Item = Located<&'d str>> + use<'d> {
        let table = self.table;
        table.iter().map(|(key, _)| Located { value: key.get_ref().as_ref(), span: key.span() })
    }

    /// The table under a key that is a name; reports `file/wrong-type` when it is no table.
    pub fn named(&self, name: &str, problems: &mut Diagnostics) -> Option<Section<'d>> {
        let value = self.raw(name)?;
        self.as_section(value, &self.joined(name), problems)
    }

    /// The table under a known key.
    pub fn section(&self, key: &'static str, problems: &mut Diagnostics) -> Option<Section<'d>> {
        self.known.borrow_mut().insert(key);
        self.named(key, problems)
    }

    /// The tables of a known key that holds a list of tables (`[[allow]]`), or none.
    pub fn sections(&self, key: &'static str, problems: &mut Diagnostics) -> Vec<Section<'d>> {
        let path = self.joined(key);
        self.array(key, problems)
            .into_iter()
            .flatten()
            .filter_map(|item| self.as_section(item, &path, problems))
            .collect()
    }

    /// The string under a known key.
    pub fn string(
        &self,
        key: &'static str,
        problems: &mut Diagnostics,
    ) -> Option<Located<&'d str>> {
        let value = self.get(key)?;
        self.as_string(value, &self.joined(key), problems)
    }

    /// The string under a known key; reports `file/missing-key` when there is none.
    pub fn required_string(
        &self,
        key: &'static str,
        problems: &mut Diagnostics,
    ) -> Option<Located<&'d str>> {
        if !self.has(key) {
            self.known.borrow_mut().insert(key);
            problems.push(self.file.problem(
                &self.span,
                "file/missing-key",
                format!("{} needs the key `{key}`", self.described()),
            ));
            return None;
        }
        self.string(key, problems)
    }

    /// The truth value under a known key.
    pub fn boolean(&self, key: &'static str, problems: &mut Diagnostics) -> Option<Located<bool>> {
        let value = self.get(key)?;
        match value.get_ref().as_bool() {
            Some(found) => Some(Located { value: found, span: value.span() }),
            None => self.wrong_type(value, &self.joined(key), "true or false", problems),
        }
    }

    /// The whole number under a known key; reports one that is not within `range`.
    pub fn integer(
        &self,
        key: &'static str,
        range: std::ops::RangeInclusive<u64>,
        problems: &mut Diagnostics,
    ) -> Option<Located<u64>> {
        let value = self.get(key)?;
        let (least, most) = (range.start(), range.end());
        let wanted = format!("a whole number from {least} to {most}");
        let DeValue::Integer(number) = value.get_ref() else {
            return self.wrong_type(value, &self.joined(key), &wanted, problems);
        };
        let read = u64::from_str_radix(number.as_str(), number.radix()).ok();
        match read.filter(|number| range.contains(number)) {
            Some(found) => Some(Located { value: found, span: value.span() }),
            None => {
                let message = format!("`{}` must be {wanted}", self.joined(key));
                problems.push(self.file.problem(&value.span(), "file/out-of-range", message));
                None
            }
        }
    }

    /// The strings of a known key that holds a list of strings. A single string counts as a list of one.
    pub fn strings(
        &self,
        key: &'static str,
        problems: &mut Diagnostics,
    ) -> Option<Vec<Located<&'d str>>> {
        let path = self.joined(key);
        if let Some(value) = self.get(key)
            && let Some(single) = value.get_ref().as_str()
        {
            return Some(vec![Located { value: single, span: value.span() }]);
        }
        let items = self.array(key, problems)?;
        Some(items.filter_map(|item| self.as_string(item, &path, problems)).collect())
    }

    /// The items of a known key that holds a list whose items are strings or tables.
    pub fn strings_or_sections(
        &self,
        key: &'static str,
        problems: &mut Diagnostics,
    ) -> Option<Vec<StringOrSection<'d>>> {
        let path = self.joined(key);
        let items: Vec<_> = self.array(key, problems)?.collect();
        let read = |item: &'d Spanned<DeValue<'d>>| match item.get_ref() {
            DeValue::String(text) => {
                Some(StringOrSection::String(Located { value: text.as_ref(), span: item.span() }))
            }
            DeValue::Table(_) => {
                self.as_section(item, &path, problems).map(StringOrSection::Section)
            }
            _ => self.wrong_type(item, &path, "a string or a table", problems),
        };
        Some(items.into_iter().filter_map(read).collect())
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.raw(key).is_some()
    }

    /// Reports every key nobody asked for as `file/unknown-key`, with the nearest known one.
    pub fn finish(&self, problems: &mut Diagnostics) {
        let known = self.known.borrow();
        for key in self.keys().filter(|key| !known.contains(key.value)) {
            let message = format!("unknown key `{}`", super::Text::new(key.value));
            let problem = self.file.problem(&key.span, "file/unknown-key", message);
            let list = known.iter().copied().collect::<Vec<_>>().join(", ");
            problems.push(match nearest(key.value, known.iter().copied()) {
                Some(near) => problem.with_help(format!("did you mean `{near}`?")),
                None => problem.with_help(format!("known keys here: {list}")),
            });
        }
    }

    fn described(&self) -> String {
        if self.path.is_empty() { "the file".to_owned() } else { format!("[{}]", self.path) }
    }

    fn joined(&self, key: &str) -> String {
        let key = super::Text::new(key);
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    fn raw(&self, key: &str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value)
    }

    fn get(&self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.borrow_mut().insert(key);
        self.raw(key)
    }

    fn array(
        &self,
        key: &'static str,
        problems: &mut Diagnostics,
    ) -> Option<impl Iterator<Item = &'d Spanned<DeValue<'d>>> + use<'d>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Array(items) => Some(items.iter()),
            _ => self.wrong_type(value, &self.joined(key), "a list", problems),
        }
    }

    fn as_string(
        &self,
        value: &'d Spanned<DeValue<'d>>,
        path: &str,
        problems: &mut Diagnostics,
    ) -> Option<Located<&'d str>> {
        match value.get_ref().as_str() {
            Some(found) => Some(Located { value: found, span: value.span() }),
            None => self.wrong_type(value, path, "a string", problems),
        }
    }

    fn as_section(
        &self,
        value: &'d Spanned<DeValue<'d>>,
        path: &str,
        problems: &mut Diagnostics,
    ) -> Option<Section<'d>> {
        match value.get_ref() {
            DeValue::Table(table) => {
                Some(Section::new(self.file, table, value.span(), path.to_owned()))
            }
            _ => self.wrong_type(value, path, "a table", problems),
        }
    }

    fn wrong_type<T>(
        &self,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        wanted: &str,
        problems: &mut Diagnostics,
    ) -> Option<T> {
        let message = format!("`{path}` must be {wanted}, found {}", value.get_ref().type_str());
        problems.push(self.file.problem(&value.span(), "file/wrong-type", message));
        None
    }
}

/// An item of a list that may be written short (a string) or long (a table).
pub enum StringOrSection<'d> {
    /// The short form.
    String(Located<&'d str>),
    /// The long form.
    Section(Section<'d>),
}

/// The known word nearest to `word`, if it is near enough to be a slip of the fingers.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(2, 3);
    known
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in characters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn source(text: &str) -> SourceFile<'_> {
        SourceFile { name: Path::new("t.toml"), text }
    }

    #[test]
    fn all_problems_are_reported_at_once_with_their_places() {
        let file = source("mode = 3\nhots = true\n[deny]\ningres = \"drop\"\n");
        let mut problems = Diagnostics::new();
        let document = Document::parse(file, &mut problems);
        let root = document.root();
        root.string("mode", &mut problems);
        root.boolean("host", &mut problems);
        let deny = root.section("deny", &mut problems).unwrap();
        deny.string("ingress", &mut problems);
        deny.finish(&mut problems);
        root.finish(&mut problems);
        let text = problems.to_string();
        assert!(
            text.contains("t.toml:1:8: error[file/wrong-type]: `mode` must be a string"),
            "{text}"
        );
        assert!(text.contains("t.toml:2:1: error[file/unknown-key]: unknown key `hots`"), "{text}");
        assert!(text.contains("did you mean `host`?"), "{text}");
        assert!(
            text.contains("t.toml:4:1: error[file/unknown-key]: unknown key `ingres`"),
            "{text}"
        );
    }

    #[test]
    fn several_syntax_errors_are_all_found() {
        let mut problems = Diagnostics::new();
        Document::parse(source("a = \nb = [1,\nc = 'x'\n= 3\n"), &mut problems);
        assert!(problems.iter().count() >= 2, "{problems}");
        assert!(problems.iter().all(|problem| problem.code == "file/syntax"));
    }

    #[test]
    fn a_key_that_acts_on_a_terminal_is_made_harmless_in_every_message() {
        let mut problems = Diagnostics::new();
        let document =
            Document::parse(source("\"a\\u001b[2J\" = 1\n[\"b\\u001b\"]\n"), &mut problems);
        let root = document.root();
        for key in root.keys() {
            if let Some(section) = root.named(key.value, &mut problems) {
                section.required_string("title", &mut problems);
            }
        }
        root.finish(&mut problems);
        assert_eq!(problems.iter().count(), 4, "{problems}");
        assert!(!problems.to_string().contains('\u{1b}'));
    }

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(distance("ingres", "ingress"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(nearest("zzz", ["mode", "host"].into_iter()), None);
    }
}
