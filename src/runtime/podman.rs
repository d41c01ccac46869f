//! Owns the wrapper's entry for Podman: a file of its own beside Podman's configuration.
//!
//! Source: `containers.conf(5)`: files in `containers.conf.d` add to and override the main one.

use std::path::Path;

/// The file, in a folder that belongs to the administrator.
pub const CONFIG: &str = "/etc/containers/containers.conf.d/50-seawall.conf";

/// What stands in it: the runtime `name` at `path`, and whether it is the default.
pub fn text(name: &str, path: &Path, is_default: bool) -> String {
    let path = toml_edit::Value::from(path.display().to_string());
    let name_text = toml_edit::Value::from(name);
    let default = if is_default { format!("runtime = {name_text}\n") } else { String::new() };
    format!(
        "# Written by `seawall runtime install --engine podman`.\n[engine]\n{default}\n[engine.runtimes]\n{name_text} = [{path}]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_as_podman_reads_it() {
        let text = text("seawall", Path::new("/var/lib/seawall/runtime/seawall-crun"), true);
        let read: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(read["engine"]["runtime"].as_str(), Some("seawall"));
        let paths = read["engine"]["runtimes"]["seawall"].as_array().unwrap();
        assert_eq!(paths[0].as_str(), Some("/var/lib/seawall/runtime/seawall-crun"));
    }
}
