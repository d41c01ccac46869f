//! Owns the wrapper's entry in containerd's `config.toml`: the program behind the runtime that Kubernetes' pods use.
//!
//! Pure: a text in, a text out; comments and formatting stay. Source: `containerd-config.toml(5)` and containerd's
//! `docs/cri/config.md`: versions 2 (containerd 1.3 to 1.7) and 3 (containerd 2).

use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, value};

/// containerd's configuration file.
pub const CONFIG: &str = "/etc/containerd/config.toml";

/// Why a `config.toml` is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is no TOML.
    #[error("it is not valid TOML: {0}")]
    NotToml(String),
    /// It is of a version nobody writes any more, or a future one.
    #[error("its version is {0}; known are 2 and 3")]
    Version(i64),
    /// Something else stands where a table should.
    #[error("`{0}` is not a table")]
    NotATable(String),
}

/// Sets the program of the runtime `runc` to `path`; with none, removes it, so that containerd finds runc itself.
/// Returns the text and the program that stood there.
pub fn set_program(text: &str, path: Option<&Path>) -> Result<(String, Option<String>), EditError> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error: toml_edit::TomlError| EditError::NotToml(error.to_string()))?;
    // A file without a version is of version 1, but an empty one is none at all.
    let is_empty = document.as_table().is_empty();
    let version = document.get("version").and_then(Item::as_integer).unwrap_or(1);
    let plugin = match version {
        _ if is_empty => {
            document.insert("version", value(2));
            "io.containerd.grpc.v1.cri"
        }
        2 => "io.containerd.grpc.v1.cri",
        3 => "io.containerd.cri.v1.runtime",
        other => return Err(EditError::Version(other)),
    };
    let steps = ["plugins", plugin, "containerd", "runtimes", "runc"];
    let mut table = document.as_table_mut();
    for (depth, step) in steps.iter().enumerate() {
        let mut new = Table::new();
        // Only the last one is written as a header of its own.
        new.set_implicit(depth + 1 < steps.len());
        table = table
            .entry(step)
            .or_insert(Item::Table(new))
            .as_table_mut()
            .ok_or_else(|| EditError::NotATable(steps[..=depth].join(".")))?;
    }
    if !table.contains_key("runtime_type") {
        table.insert("runtime_type", value("io.containerd.runc.v2"));
    }
    let options = table
        .entry("options")
        .or_insert(Item::Table(Table::new()))
        .as_table_like_mut()
        .ok_or_else(|| EditError::NotATable("options".to_owned()))?;
    let former = options.get("BinaryName").and_then(Item::as_str).map(str::to_owned);
    match path {
        Some(path) => drop(options.insert("BinaryName", value(path.display().to_string()))),
        None => drop(options.remove("BinaryName")),
    }
    Ok((document.to_string(), former.filter(|program| !program.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/var/lib/seawall/runtime/seawall-runc";

    #[test]
    fn the_program_is_set_and_comments_stay() {
        let before = "# ours\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"pause:3.9\" # pinned\n";
        let (after, former) = set_program(before, Some(Path::new(PATH))).unwrap();
        assert_eq!(former, None);
        insta::assert_snapshot!(after, @r#"
        # ours
        version = 2

        [plugins."io.containerd.grpc.v1.cri"]
          sandbox_image = "pause:3.9" # pinned

        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"

        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "/var/lib/seawall/runtime/seawall-runc"
        "#);
        let (again, former) = set_program(&after, Some(Path::new(PATH))).unwrap();
        assert_eq!((again, former.as_deref()), (after, Some(PATH)));
    }

    #[test]
    fn versions_have_their_own_plugin_and_unknown_ones_are_refused() {
        let (three, _) = set_program("version = 3\n", Some(Path::new(PATH))).unwrap();
        assert!(
            three.contains("[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]"),
            "{three}"
        );
        let (empty, _) = set_program("", Some(Path::new(PATH))).unwrap();
        assert!(empty.starts_with("version = 2\n"), "{empty}");
        assert_eq!(set_program("version = 9\n", None), Err(EditError::Version(9)));
        assert_eq!(set_program("root = \"/x\"\n", None), Err(EditError::Version(1)));
        assert!(matches!(set_program("version = ", None), Err(EditError::NotToml(_))));
        assert!(matches!(
            set_program("version = 2\nplugins = 7\n", None),
            Err(EditError::NotATable(_))
        ));
    }

    #[test]
    fn the_former_program_is_told() {
        let text = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\nBinaryName = \"/opt/runc\"\nSystemdCgroup = true\n";
        let (after, former) = set_program(text, Some(Path::new(PATH))).unwrap();
        assert_eq!(former.as_deref(), Some("/opt/runc"));
        assert!(after.contains("SystemdCgroup = true"));
        let (removed, _) = set_program(&after, None).unwrap();
        assert!(!removed.contains("BinaryName"), "{removed}");
    }
}
