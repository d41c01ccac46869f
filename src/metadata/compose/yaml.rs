//! Owns a YAML file as a tree whose every node knows its place, and reading that tree with problems noted.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::interpolate::interpolate;
use crate::input::diagnostic::SourceFile;
use crate::input::{Diagnostic, Diagnostics, Place, Text};

/// A YAML value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Null,
    /// A string, number or truth value, as text; variables are replaced already.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// A YAML value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) offset: usize,
}

impl Node {
    /// The value under a key of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The entries of a map; none for anything else.
    pub(super) fn entries(&self) -> &[(Node, Node)] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing stands there.
    pub(super) fn is_null(&self) -> bool {
        self.content == Content::Null
    }
}

/// A file and its problems so far.
pub(super) struct Reader<'a> {
    source: SourceFile<'a>,
    pub(super) problems: Diagnostics,
}

impl<'a> Reader<'a> {
    /// Parses the file; a syntax error is a problem and leaves no tree.
    pub(super) fn parse(source: SourceFile<'a>) -> (Self, Option<Node>) {
        let mut reader = Self { source, problems: Diagnostics::new() };
        let options = serde_saphyr::options! { with_snippet: false };
        match serde_saphyr::from_str_with_options::<Spanned<Raw>>(source.text, options) {
            Ok(root) => {
                let root = reader.node(root);
                (reader, Some(root))
            }
            Err(error) => {
                let place = error.location().map_or((1, 1), |at| (at.line(), at.column()));
                let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
                let message = error.without_snippet().to_string();
                reader.problems.push(Diagnostic {
                    place: Place {
                        file: source.name.to_path_buf(),
                        line: number(place.0),
                        column: number(place.1),
                    },
                    code: "compose/syntax",
                    message: format!("this is no YAML: {}", Text::new(&message)),
                    help: None,
                });
                (reader, None)
            }
        }
    }

    /// Notes a problem at a node.
    pub(super) fn problem(&mut self, node: &Node, code: &'static str, message: impl Into<String>) {
        self.problems.push(self.source.problem(&(node.offset..node.offset), code, message));
    }

    /// Notes a problem at a node, with advice.
    pub(super) fn problem_with_help(
        &mut self,
        node: &Node,
        code: &'static str,
        message: impl Into<String>,
        help: &str,
    ) {
        let problem = self.source.problem(&(node.offset..node.offset), code, message);
        self.problems.push(problem.with_help(help));
    }

    fn wrong_type(&mut self, node: &Node, what: &str, wanted: &str) {
        self.problem(node, "compose/wrong-type", format!("`{what}` must be {wanted}"));
    }

    /// The entries of a map under `key`; nothing there or `null` is empty.
    pub(super) fn map<'n>(&mut self, parent: &'n Node, key: &str) -> &'n [(Node, Node)] {
        match parent.get(key) {
            None => &[],
            Some(node) => {
                if !matches!(node.content, Content::Map(_) | Content::Null) {
                    self.wrong_type(node, key, "a mapping");
                }
                node.entries()
            }
        }
    }

    /// The scalar under `key`; an empty one counts as nothing.
    pub(super) fn scalar<'n>(
        &mut self,
        parent: &'n Node,
        key: &str,
    ) -> Option<(&'n Node, &'n str)> {
        let node = parent.get(key)?;
        match &node.content {
            Content::Scalar(text) if text.is_empty() => None,
            Content::Scalar(text) => Some((node, text)),
            Content::Null => None,
            _ => {
                self.wrong_type(node, key, "a single value");
                None
            }
        }
    }

    /// The truth value under `key`, false when nothing is there.
    pub(super) fn flag(&mut self, parent: &Node, key: &str) -> bool {
        match self.scalar(parent, key) {
            None => false,
            Some((_, text)) if text.eq_ignore_ascii_case("true") => true,
            Some((_, text)) if text.eq_ignore_ascii_case("false") => false,
            Some((node, _)) => {
                self.wrong_type(node, key, "true or false");
                false
            }
        }
    }

    /// The items under `key`, which is a list; a single value counts as a list of one.
    pub(super) fn items<'n>(&mut self, parent: &'n Node, key: &str) -> &'n [Node] {
        match parent.get(key) {
            None => &[],
            Some(node) => match &node.content {
                Content::List(items) => items,
                Content::Scalar(_) => std::slice::from_ref(node),
                Content::Null => &[],
                Content::Map(_) => {
                    self.wrong_type(node, key, "a list");
                    &[]
                }
            },
        }
    }

    /// The scalars of the list under `key`.
    pub(super) fn scalars<'n>(&mut self, parent: &'n Node, key: &str) -> Vec<(&'n Node, &'n str)> {
        let mut found = Vec::new();
        for item in self.items(parent, key) {
            match item.as_str() {
                Some(text) => found.push((item, text)),
                None if item.is_null() => {}
                None => self.wrong_type(item, key, "a list of single values"),
            }
        }
        found
    }

    /// `KEY=value` items of a list, or the entries of a map.
    pub(super) fn assignments(&mut self, parent: &Node, key: &str) -> Vec<(String, String)> {
        if let Some(Content::Map(entries)) = parent.get(key).map(|node| &node.content) {
            let read = |(name, value): &(Node, Node)| {
                Some((name.as_str()?.to_owned(), value.as_str().unwrap_or_default().to_owned()))
            };
            return entries.iter().filter_map(read).collect();
        }
        let items = self.scalars(parent, key).into_iter();
        items
            .map(|(_, item)| item.split_once('=').unwrap_or((item, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    fn node(&mut self, spanned: Spanned<Raw>) -> Node {
        let offset = self.offset(&spanned);
        let mut node = Node { content: Content::Null, offset };
        node.content = match spanned.value {
            Raw::Null => Content::Null,
            Raw::Typed(text) => Content::Scalar(text),
            Raw::Text(text) => match interpolate(&text) {
                Ok(text) => Content::Scalar(text),
                Err(error) => {
                    self.problem_with_help(
                        &node,
                        "compose/interpolation",
                        error.to_string(),
                        "write `$$` for a dollar sign",
                    );
                    Content::Null
                }
            },
            Raw::List(items) => {
                Content::List(items.into_iter().map(|item| self.node(item)).collect())
            }
            Raw::Map(entries) => Content::Map(
                entries.into_iter().map(|(key, value)| (self.key(key), self.node(value))).collect(),
            ),
        };
        node
    }

    /// Compose replaces variables in values only.
    fn key(&mut self, spanned: Spanned<Raw>) -> Node {
        let offset = self.offset(&spanned);
        let content = match spanned.value {
            Raw::Text(text) | Raw::Typed(text) => Content::Scalar(text),
            _ => Content::Null,
        };
        Node { content, offset }
    }

    fn offset(&self, spanned: &Spanned<Raw>) -> usize {
        let location = spanned.referenced;
        let known = location.span().byte_offset().and_then(|at| usize::try_from(at).ok());
        known.unwrap_or_else(|| {
            let line = usize::try_from(location.line().saturating_sub(1)).unwrap_or(0);
            self.source.text.split_inclusive('\n').take(line).map(str::len).sum()
        })
    }
}

/// What serde hands over.
#[derive(Debug)]
enum Raw {
    Null,
    /// A number or truth value.
    Typed(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Typed(value.to_string()))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}
