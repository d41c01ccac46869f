//! Owns the wrapper's entries in Docker's `daemon.json`: the runtime, and which runtime is the default.
//!
//! Pure: a text in, a text out. Everything else in the file, its formatting included, stays as it is.
//! Source: <https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file>.

use std::path::Path;

use jsonc_parser::ParseOptions;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use serde_json::Value;

/// Docker's configuration file, unless it is told otherwise.
pub const CONFIG: &str = "/etc/docker/daemon.json";

/// The runtime Docker has without being told.
pub const BUILT_IN: &str = "runc";

/// JSON as Docker reads it: no comments, no trailing commas.
const STRICT: ParseOptions = ParseOptions {
    allow_comments: false,
    allow_loose_object_property_names: false,
    allow_trailing_commas: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Why a `daemon.json` is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is no JSON.
    #[error("it is not valid JSON: {0}")]
    NotJson(String),
    /// It is JSON, but not what Docker expects.
    #[error("`{0}` is not an object")]
    NotAnObject(&'static str),
    /// It is JSON, but not what Docker expects.
    #[error("`{0}` is not a string")]
    NotAString(&'static str),
}

/// What is set up in a `daemon.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The default runtime, where one is named.
    pub default: Option<String>,
    /// The path of each runtime that has one, by name.
    pub paths: Vec<(String, String)>,
    /// Runtimes that get arguments of their own.
    pub with_arguments: Vec<String>,
}

impl Setup {
    /// Reads what is set up.
    pub fn read(text: &str) -> Result<Self, EditError> {
        let value = parse(text)?;
        let runtimes = match &value["runtimes"] {
            Value::Null => Vec::new(),
            Value::Object(runtimes) => runtimes.iter().collect(),
            _ => return Err(EditError::NotAnObject("runtimes")),
        };
        let default = match &value["default-runtime"] {
            Value::Null => None,
            Value::String(name) => Some(name.clone()),
            _ => return Err(EditError::NotAString("default-runtime")),
        };
        let path = |(name, of): &(&String, &Value)| {
            Some(((*name).clone(), of["path"].as_str()?.to_owned()))
        };
        let has_arguments =
            |of: &Value| of["runtimeArgs"].as_array().is_some_and(|list| !list.is_empty());
        Ok(Self {
            default,
            paths: runtimes.iter().filter_map(path).collect(),
            with_arguments: runtimes
                .iter()
                .filter(|(_, of)| has_arguments(of))
                .map(|(name, _)| (*name).clone())
                .collect(),
        })
    }

    /// The path of a runtime.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.paths.iter().find(|(known, _)| known == name).map(|(_, path)| path.as_str())
    }
}

/// Adds runtime `name` at `path`, in the place of one of that name, and makes it the default if asked to.
pub fn install(text: &str, name: &str, path: &Path, is_default: bool) -> Result<String, EditError> {
    Setup::read(text)?;
    let (root, object) = open(text)?;
    let path = CstInputValue::String(path.display().to_string());
    let entry = CstInputValue::Object(vec![("path".to_owned(), path)]);
    set(&object.object_value_or_set("runtimes"), name, entry);
    if is_default {
        set(&object, "default-runtime", CstInputValue::String(name.to_owned()));
    }
    Ok(with_newline(root.to_string()))
}

/// Removes runtime `name`. Where it is the default, `former` is again.
pub fn uninstall(text: &str, name: &str, former: Option<&str>) -> Result<String, EditError> {
    let setup = Setup::read(text)?;
    let (root, object) = open(text)?;
    if let Some(runtimes) = object.object_value("runtimes") {
        if let Some(entry) = runtimes.get(name) {
            entry.remove();
        }
        if runtimes.properties().is_empty()
            && let Some(all) = object.get("runtimes")
        {
            all.remove();
        }
    }
    if setup.default.as_deref() == Some(name)
        && let Some(default) = object.get("default-runtime")
    {
        match former {
            Some(former) => default.set_value(CstInputValue::String(former.to_owned())),
            None => default.remove(),
        }
    }
    Ok(root.to_string())
}

/// What Docker must read for runtime `name` to be gone while it runs: of keys that are absent it keeps what it read before.
pub fn release(text: &str, name: &str, former: Option<&str>) -> Result<String, EditError> {
    let setup = Setup::read(text)?;
    let (root, object) = open(text)?;
    if let Some(entry) = object.object_value_or_set("runtimes").get(name) {
        entry.remove();
    }
    if setup.default.as_deref() == Some(name) {
        let default = CstInputValue::String(former.unwrap_or(BUILT_IN).to_owned());
        set(&object, "default-runtime", default);
    }
    Ok(root.to_string())
}

fn set(object: &CstObject, name: &str, value: CstInputValue) {
    match object.get(name) {
        Some(property) => property.set_value(value),
        None => drop(object.append(name, value)),
    }
}

fn with_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The whole as a value; Docker takes an empty file for one that says nothing.
fn parse(text: &str) -> Result<Value, EditError> {
    // Of what JSON takes for a space (RFC 8259, 2).
    if text.trim_matches([' ', '\t', '\n', '\r']).is_empty() {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let value: Value =
        serde_json::from_str(text).map_err(|error| EditError::NotJson(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(EditError::NotAnObject("the file")) }
}

fn open(text: &str) -> Result<(CstRootNode, CstObject), EditError> {
    let root =
        CstRootNode::parse(text, &STRICT).map_err(|error| EditError::NotJson(error.to_string()))?;
    let object = root.object_value_or_create().ok_or(EditError::NotAnObject("the file"))?;
    Ok((root, object))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/var/lib/seawall/runtime/seawall-runc";

    fn installed(text: &str) -> String {
        install(text, "seawall", Path::new(PATH), true).unwrap()
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let before = "{\n    \"log-driver\":   \"json-file\",\n    \"runtimes\": {\n        \"kata\": { \"path\": \"/opt/kata\" }\n    },\n    \"dns\": [\"192.0.2.53\"]\n}\n";
        let after = installed(before);
        insta::assert_snapshot!(after, @r#"
        {
            "log-driver":   "json-file",
            "runtimes": {
                "kata": { "path": "/opt/kata" },
                "seawall": {
                    "path": "/var/lib/seawall/runtime/seawall-runc"
                }
            },
            "dns": ["192.0.2.53"],
            "default-runtime": "seawall"
        }
        "#);
        assert_eq!(uninstall(&after, "seawall", None).unwrap(), before);
    }

    #[test]
    fn the_former_default_comes_back() {
        let before =
            "{\"default-runtime\":\"kata\",\"runtimes\":{\"kata\":{\"path\":\"/opt/kata\"}}}";
        let after = installed(before);
        let setup = Setup::read(&after).unwrap();
        assert_eq!(
            (setup.default.as_deref(), setup.path("seawall")),
            (Some("seawall"), Some(PATH))
        );
        assert_eq!(setup.path("kata"), Some("/opt/kata"));
        let back = uninstall(&after, "seawall", Some("kata")).unwrap();
        assert_eq!(parse(&back), parse(before));
    }

    #[test]
    fn installing_twice_changes_nothing_more() {
        let once = installed("");
        assert_eq!(installed(&once), once);
        assert_eq!(
            parse(&uninstall(&once, "seawall", None).unwrap()).unwrap(),
            serde_json::json!({})
        );
    }

    #[test]
    fn somebody_elses_default_is_left_alone() {
        let text = install("{\"default-runtime\": \"kata\"}", "seawall", Path::new(PATH), false);
        let setup = Setup::read(&text.clone().unwrap()).unwrap();
        assert_eq!(setup.default.as_deref(), Some("kata"));
        let back = uninstall(&text.unwrap(), "seawall", None).unwrap();
        assert_eq!(Setup::read(&back).unwrap().default.as_deref(), Some("kata"));
    }

    #[test]
    fn releasing_says_in_so_many_words_that_it_is_gone() {
        let released = release(&installed("{}"), "seawall", None).unwrap();
        let wanted = serde_json::json!({"runtimes": {}, "default-runtime": "runc"});
        assert_eq!(parse(&released).unwrap(), wanted);
        let released =
            release(&installed("{\"default-runtime\": \"kata\"}"), "seawall", Some("kata"));
        assert_eq!(Setup::read(&released.unwrap()).unwrap().default.as_deref(), Some("kata"));
    }

    #[test]
    fn what_docker_would_not_read_is_not_edited() {
        for (text, error) in [
            ("{ // a comment\n}", "not valid JSON"),
            ("{\"a\": 1,}", "not valid JSON"),
            ("[]", "`the file` is not an object"),
            ("{\"runtimes\": []}", "`runtimes` is not an object"),
            ("{\"default-runtime\": 7}", "`default-runtime` is not a string"),
            ("{\"a\":", "not valid JSON"),
        ] {
            let found = install(text, "seawall", Path::new(PATH), true).unwrap_err().to_string();
            assert!(found.contains(error), "{text}: {found}");
        }
    }

    #[test]
    fn runtimes_with_arguments_are_told_apart() {
        let text = r#"{"runtimes": {"x": {"path": "/x", "runtimeArgs": ["--y"]}, "z": {"path": "/z", "runtimeArgs": []}}}"#;
        assert_eq!(Setup::read(text).unwrap().with_arguments, ["x"]);
    }
}
