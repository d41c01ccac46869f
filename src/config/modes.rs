//! Owns the modes set at run time (`seawall mode`): a file in the state folder, read after the operators' own files.
//!
//! It is a policy file with nothing but `[[mode]]` in it, so that it is validated, explained and overridden like any other.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::input::diagnostic::SourceFile;
use crate::input::{Diagnostic, Text};
use crate::policy::operator;

/// Its name in the state folder.
const NAME: &str = "modes.toml";
const HEAD: &str = "\
# Modes set by `seawall mode`. They count after those of policy.d; `seawall mode SELECTOR default` takes one back.
";

/// A mode set at run time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeSetting {
    /// Which workloads, as a selector.
    pub select: String,
    /// off, observe or enforce.
    pub mode: String,
}

/// A mode to be set, or taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeChange {
    /// Which workloads, as a selector.
    pub select: String,
    /// off, observe or enforce; none: what the files say.
    pub mode: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mode: Vec<ModeSetting>,
}

/// Where the file of a state folder is.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// The modes that a file's text sets, the last one last.
pub fn read(text: &str) -> Result<Vec<ModeSetting>, toml::de::Error> {
    toml::from_str::<File>(text).map(|file| file.mode)
}

/// What speaks against a file that is otherwise a good policy file: the next mode that is set would not keep it.
pub fn check(file: SourceFile<'_>) -> Option<Diagnostic> {
    let error = toml::from_str::<File>(file.text).err()?;
    if !operator::check_without_catalogue(&[file]).is_empty() {
        return None;
    }
    let span = error.span().unwrap_or(0..0);
    let message = format!(
        "only modes that `seawall mode` sets may stand here: {}",
        Text::new(error.message())
    );
    let problem = file.problem(&span, "config/bad-modes", message);
    Some(problem.with_help("put it into a file in policy.d/ beside the configuration"))
}

/// The same modes with one changed: it counts last.
pub fn changed(mut modes: Vec<ModeSetting>, change: &ModeChange) -> Vec<ModeSetting> {
    modes.retain(|setting| setting.select != change.select);
    if let Some(mode) = &change.mode {
        modes.push(ModeSetting { select: change.select.clone(), mode: mode.clone() });
    }
    modes
}

/// The file's text, if all of it is good; else what is wrong with it.
pub fn text(modes: &[ModeSetting], path: &Path) -> Result<String, String> {
    let mut text = HEAD.to_owned();
    for ModeSetting { select, mode } in modes {
        let (select, mode) =
            (toml::Value::String(select.clone()), toml::Value::String(mode.clone()));
        // Writing to a string cannot fail.
        let _ = write!(text, "\n[[mode]]\nselect = {select}\nmode = {mode}\n");
    }
    let problems = operator::check_without_catalogue(&[SourceFile { name: path, text: &text }]);
    let problems: Vec<String> =
        problems.iter().map(|problem| problem.message.to_string()).collect();
    if problems.is_empty() { Ok(text) } else { Err(problems.join("; ")) }
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = tempfile_beside(path)?;
    file.1.write_all(text.as_bytes())?;
    file.1.sync_all()?;
    std::fs::rename(&file.0, path)
}

fn tempfile_beside(path: &Path) -> io::Result<(PathBuf, std::fs::File)> {
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let file = std::fs::File::create(&beside)?;
    Ok((beside, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(select: &str, mode: Option<&str>) -> ModeChange {
        ModeChange { select: select.to_owned(), mode: mode.map(str::to_owned) }
    }

    #[test]
    fn what_is_written_reads_back_and_the_last_change_counts_last() {
        let modes = changed(Vec::new(), &change("project:a", Some("enforce")));
        let modes = changed(modes, &change("label:x=\"q\"", Some("off")));
        let modes = changed(modes, &change("project:a", Some("observe")));
        let written = text(&modes, Path::new("modes.toml")).unwrap();
        assert_eq!(read(&written).unwrap(), modes);
        assert_eq!(modes.last().map(|one| one.mode.as_str()), Some("observe"));
        assert_eq!(changed(modes, &change("project:a", None)).len(), 1);
    }

    #[test]
    fn what_the_next_mode_would_not_keep_is_a_problem() {
        let check = |text: &str| {
            let problem = check(SourceFile { name: Path::new("modes.toml"), text });
            problem.map(|problem| problem.to_string())
        };
        let mode = "[[mode]]\nselect = \"project:a\"\nmode = \"enforce\"\n";
        assert_eq!(check(mode), None);
        let deny = check(&format!("{mode}[[deny]]\nfrom = \"any\"\nto = \"world\"\n")).unwrap();
        assert!(deny.starts_with("modes.toml:4:3: error[config/bad-modes]: only modes"), "{deny}");
        let list = check("[[mode]]\nselect = [\"project:a\", \"project:b\"]\nmode = \"off\"\n");
        assert!(list.unwrap().starts_with("modes.toml:2:10: error[config/bad-modes]"));
        assert_eq!(check("[[mod]]\n"), None, "told as a policy file's problem already");
    }

    #[test]
    fn what_is_no_selector_or_no_mode_is_refused_in_words() {
        for (select, mode) in [("", "off"), ("colour:red", "off"), ("host", "off"), ("any", "on")] {
            let modes = changed(Vec::new(), &change(select, Some(mode)));
            assert!(text(&modes, Path::new("modes.toml")).is_err(), "{select} {mode}");
        }
        let injected =
            change("project:a\"\n[[allow]]\nfrom = \"any\"\nto = \"world\"\n", Some("off"));
        let modes = changed(Vec::new(), &injected);
        if let Ok(written) = text(&modes, Path::new("modes.toml")) {
            assert_eq!(read(&written).unwrap(), modes, "it stays one string");
        }
    }
}
