//! Owns reading JSON that nobody promised the shape of: what is missing or of the wrong type reads as nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::input::Text;

/// The value at a path of object keys; [`Value::Null`] where there is none.
pub(crate) fn at<'v>(value: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(value, |value, key| value.get(*key).unwrap_or(&Value::Null))
}

/// The string at a path; empty where there is none.
pub(crate) fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    at(value, path).as_str().unwrap_or_default()
}

/// The truth value at a path; false where there is none.
pub(crate) fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).as_bool().unwrap_or_default()
}

/// The strings of the list at a path; a single string counts as a list of one.
pub(crate) fn texts<'v>(
    value: &'v Value,
    path: &[&str],
) -> impl Iterator<Item = &'v str> + use<'v> {
    let found = at(value, path);
    let items = found.as_array().map(Vec::as_slice).unwrap_or_default();
    found.as_str().into_iter().chain(items.iter().filter_map(Value::as_str))
}

/// The entries of the object at a path.
pub(crate) fn entries<'v>(
    value: &'v Value,
    path: &[&str],
) -> impl Iterator<Item = (&'v str, &'v Value)> + use<'v> {
    at(value, path).as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The entries of the object at a path whose values are strings, made harmless.
pub(crate) fn text_map(value: &Value, path: &[&str]) -> BTreeMap<Text, Text> {
    entries(value, path)
        .filter_map(|(key, value)| Some((Text::new(key), Text::new(value.as_str()?))))
        .collect()
}

/// The keys of the object at a path, or the strings of the list there, that parse.
pub(crate) fn parsed_keys<T: std::str::FromStr + Ord>(value: &Value, path: &[&str]) -> BTreeSet<T> {
    entries(value, path)
        .map(|(key, _)| key)
        .chain(texts(value, path))
        .filter_map(|key| key.parse().ok())
        .collect()
}
