//! Owns which files make up the configuration: `seawall.toml`, and beside it `models.d/*.toml` and `policy.d/*.toml` in name order.
//!
//! Reading and parsing are apart: [`Files::read`] does all the I/O, [`Files::load`] is pure.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Config;
use crate::input::diagnostic::SourceFile;
use crate::input::{Diagnostic, Diagnostics, Place, Text};
use crate::model::Catalogue;
use crate::policy::operator::{self, OperatorPolicy};

/// One file and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it was read.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
}

impl Source {
    /// The file, for parsing.
    pub fn as_file(&self) -> SourceFile<'_> {
        SourceFile { name: &self.path, text: &self.text }
    }
}

/// The texts of all configuration files, and what could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `seawall.toml`; a missing one is no problem.
    pub config: Option<Source>,
    /// `models.d/*.toml` by name.
    pub models: Vec<Source>,
    /// `policy.d/*.toml` by name.
    pub policies: Vec<Source>,
    /// Files that are there and could not be read.
    pub problems: Diagnostics,
}

/// Everything that configuration files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// `seawall.toml`.
    pub config: Config,
    /// The built-in catalogue with the operators' models.
    pub catalogue: Catalogue,
    /// Operators' statements.
    pub operator: OperatorPolicy,
}

impl Files {
    /// Reads the configuration file and those beside it.
    pub fn read(config_path: &Path) -> Self {
        let mut files = Self::default();
        files.config = match read_text(config_path) {
            Ok(text) => Some(Source { path: config_path.to_path_buf(), text }),
            Err(ReadError::Missing) => None,
            Err(ReadError::Other(problem)) => {
                files.problems.push(problem);
                None
            }
        };
        let beside = config_path.parent().unwrap_or(Path::new(""));
        files.models = read_directory(&beside.join("models.d"), &mut files.problems);
        files.policies = read_directory(&beside.join("policy.d"), &mut files.problems);
        files
    }

    /// Reads the modes set at run time too: they count after those of the operators' files.
    pub fn with_modes(mut self, state_dir: &Path) -> Self {
        let path = super::modes::path(state_dir);
        match read_text(&path) {
            Ok(text) => {
                let source = Source { path, text };
                super::modes::check(source.as_file())
                    .into_iter()
                    .for_each(|one| self.problems.push(one));
                self.policies.push(source);
            }
            Err(ReadError::Missing) => {}
            Err(ReadError::Other(problem)) => self.problems.push(problem),
        }
        self
    }

    /// Parses everything, and reports the problems of all files together. `parse_catalogue` is given the files of `models.d` and adds
    /// the built-in catalogue itself.
    pub fn load(
        &self,
        parse_catalogue: impl FnOnce(&[SourceFile<'_>]) -> Result<Catalogue, Diagnostics>,
    ) -> Result<Loaded, Diagnostics> {
        let mut problems = self.problems.clone();
        let config = match self.config.as_ref().map(|source| Config::parse(source.as_file())) {
            Some(Err(found)) => {
                problems.append(found);
                Config::default()
            }
            Some(Ok(config)) => config,
            None => Config::default(),
        };
        let models: Vec<SourceFile<'_>> = self.models.iter().map(Source::as_file).collect();
        let policies: Vec<SourceFile<'_>> = self.policies.iter().map(Source::as_file).collect();
        match parse_catalogue(&models) {
            Ok(catalogue) => match operator::parse(&policies, &catalogue) {
                Ok(operator) => problems.into_result(Loaded { config, catalogue, operator }),
                Err(found) => {
                    problems.append(found);
                    Err(problems)
                }
            },
            Err(found) => {
                problems.append(found);
                problems.append(operator::check_without_catalogue(&policies));
                Err(problems)
            }
        }
    }
}

enum ReadError {
    Missing,
    Other(Diagnostic),
}

fn read_text(path: &Path) -> Result<String, ReadError> {
    let bytes = fs::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ReadError::Missing,
        _ => ReadError::Other(unreadable(path, &error)),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        // The place is where the text stops being UTF-8.
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        ReadError::Other(Diagnostic {
            place: Place::of(path, &text, text.len()),
            code: "config/not-utf8",
            message: "the file is not UTF-8 text".to_owned(),
            help: Some("save it as UTF-8".to_owned()),
        })
    })
}

fn read_directory(directory: &Path, problems: &mut Diagnostics) -> Vec<Source> {
    let listed = fs::read_dir(directory).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut paths = match listed {
        Ok(paths) => paths,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push(unreadable(directory, &error));
            return Vec::new();
        }
    };
    paths.retain(|path| is_meant(path));
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        match read_text(&path) {
            Ok(text) => sources.push(Source { path, text }),
            // It was listed, so a link leads nowhere (or it is gone, which deserves another look all the same).
            Err(ReadError::Missing) => {
                problems.push(unreadable(&path, &io::Error::from(io::ErrorKind::NotFound)));
            }
            Err(ReadError::Other(problem)) => problems.push(problem),
        }
    }
    sources
}

/// `*.toml`, but no hidden file: editors leave those lying about.
fn is_meant(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|extension| extension == "toml")
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    Diagnostic {
        place: Place { file: path.to_path_buf(), line: 1, column: 1 },
        code: "config/unreadable",
        message: format!("cannot read it: {}", Text::new(&error.to_string())),
        help: None,
    }
}
