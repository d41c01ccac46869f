//! Pure layer: the dependency law, the reachability of every file, and module docs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Left to right; a module imports only from itself and from modules to its left.
const LAYERS: [&str; 12] = [
    "input",
    "metadata",
    "model",
    "policy",
    "compile",
    "nft",
    "config",
    "reconcile",
    "observe",
    "api",
    "runtime",
    "cli",
];

/// A source file: path below `src` and text.
type Source<'a> = (&'a Path, &'a str);

#[test]
fn a_module_imports_only_from_modules_to_its_left() {
    assert_clean(&each(wrong_imports));
}

#[test]
fn every_file_is_reachable_through_mod_declarations() {
    let sources = sources();
    let sources: Vec<Source<'_>> =
        sources.iter().map(|(path, text)| (path.as_path(), text.as_str())).collect();
    assert_clean(&unreachable(&sources));
}

#[test]
fn every_file_begins_with_its_documentation() {
    assert_clean(&each(|(path, text)| {
        // The binary's entry point and the library are held to it as well.
        let documented = text.lines().next().is_some_and(|line| line.starts_with("//! "));
        (!documented)
            .then(|| format!("{}: its first line is no `//!` documentation", path.display()))
            .into_iter()
            .collect()
    }));
}

#[test]
fn the_law_knows_every_module() {
    assert_clean(&each(|(path, _)| match layer_of(path) {
        None if !is_exempt(path) => {
            vec![format!("{}: belongs to no layer; add it to LAYERS", path.display())]
        }
        _ => Vec::new(),
    }));
}

#[test]
fn violations_are_found() {
    let wrong = |path: &str, text: &str| wrong_imports((Path::new(path), text));
    for (path, text) in [
        ("model/resolve.rs", "use crate::policy::Policy;"),
        ("model/mod.rs", "use crate::{metadata::Workload, nft};"),
        ("metadata/image.rs", "fn f() -> crate::cli::Args { todo() }"),
        ("metadata/image.rs", "use super::super::policy::Policy;"),
        ("metadata/mod.rs", "use super::policy;"),
        ("metadata/docker/events.rs", "use super::super::super::{input::Text, reconcile};"),
        ("policy.rs", "use super::compile::Ruleset;"),
        ("input/text.rs", "pub use seawall::api::Server;"),
        ("compile/mod.rs", "use crate\n    ::nft::Table;"),
        ("model/mod.rs", "use crate::{\n    input::{Text, Place},\n    api::Server as S,\n};"),
        ("model/mod.rs", "use crate as everything;"),
        ("model/mod.rs", "use crate::*;"),
    ] {
        assert_eq!(wrong(path, text).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("policy/mod.rs", "use crate::model::Model;\nuse crate::{input::{Text, Place}, metadata};"),
        ("policy/generate.rs", "use super::statement::Statement;\nuse super::super::model::Model;"),
        ("policy/generate.rs", "// crate::cli is told about in a comment\n//! [`crate::nft`]"),
        (
            "policy/generate.rs",
            "/* crate::cli */ const TEXT: &str = \"crate::nft::x \\\" crate::cli\";",
        ),
        (
            "policy/generate.rs",
            "const RAW: &str = r#\"crate::nft \" crate::cli\"#; const Q: char = '\"';",
        ),
        (
            "model/mod.rs",
            "use std::{collections::BTreeMap, fmt};\nmod tests { use super::*; use super::super::*; }",
        ),
        ("main.rs", "use seawall::cli;"),
        ("lib.rs", "pub mod cli;"),
        ("cli/mod.rs", "pub(crate) fn f() {} pub(in crate::cli) fn g() {}"),
    ] {
        assert_eq!(wrong(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

#[test]
fn unreachable_files_are_found() {
    let tree = |extra: &'static str| {
        unreachable(&[
            (Path::new("lib.rs"), "pub mod input;\n// pub mod ghost;"),
            (Path::new("main.rs"), "fn main() {}"),
            (Path::new("input/mod.rs"), "mod text;\n#[cfg(test)]\nmod tests { mod inline {} }"),
            (Path::new("input/text.rs"), "mod deep;"),
            (Path::new("input/text/deep.rs"), ""),
            (Path::new(extra), ""),
        ])
    };
    assert_eq!(tree("main.rs"), Vec::<String>::new());
    assert_eq!(tree("ghost.rs").len(), 1);
    assert_eq!(tree("input/deep.rs").len(), 1);
}

/// Imports that the law forbids, one line of text for each.
fn wrong_imports((path, text): Source<'_>) -> Vec<String> {
    let Some(own) = layer_of(path) else { return Vec::new() };
    let module = module_path(path);
    let tokens = tokens(text);
    let mut wrong = Vec::new();
    for (start, token) in tokens.iter().enumerate() {
        let qualified = start > 1 && tokens[start - 1] == "::" && tokens[start - 2] != "super";
        if qualified || (token == "super" && start > 0 && tokens[start - 1] == "::") {
            continue;
        }
        let follows = |at: usize, what: &str| tokens.get(at).is_some_and(|token| token == what);
        // Where the path starts: depth 0 is the crate itself.
        let (mut depth, mut at) = match token.as_str() {
            // `pub(crate)` names no module.
            "crate" if !follows(start + 1, ")") => (0, start + 1),
            "seawall" if follows(start + 1, "::") => (0, start + 1),
            "super" => (module.len().saturating_sub(1 + inline_depth(&tokens[..start])), start + 1),
            _ => continue,
        };
        while follows(at, "::") && follows(at + 1, "super") {
            depth = depth.saturating_sub(1);
            at += 2;
        }
        let inline = token == "super" && inline_depth(&tokens[..start]) > 0;
        if depth > 0 || inline && !follows(at, "::") {
            continue;
        }
        let names =
            if follows(at, "::") { first_names(&tokens[at + 1..]) } else { vec!["*".to_owned()] };
        for name in names {
            let allowed = match LAYERS.iter().position(|layer| *layer == name) {
                Some(layer) => layer <= own,
                // A glob of the crate's root would import everything; in an inline module it is about that module's parents.
                None => name != "*" || inline,
            };
            if !allowed {
                wrong.push(format!(
                    "{}: `{}` must not import from `{name}`",
                    path.display(),
                    LAYERS[own]
                ));
            }
        }
    }
    wrong
}

/// Files that no chain of `mod` declarations from `lib.rs` or `main.rs` leads to.
fn unreachable(sources: &[Source<'_>]) -> Vec<String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<PathBuf> = vec!["lib.rs".into(), "main.rs".into()];
    while let Some(path) = open.pop() {
        let Some((_, text)) = sources.iter().find(|(known, _)| *known == path) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        let folder: PathBuf = module_path(&path).iter().collect();
        let tokens = tokens(text);
        for declaration in tokens.windows(3).filter(|three| three[0] == "mod" && three[2] == ";") {
            open.push(folder.join(format!("{}.rs", declaration[1])));
            open.push(folder.join(&declaration[1]).join("mod.rs"));
        }
    }
    let lost = sources.iter().filter(|(path, _)| !reached.contains(*path));
    lost.map(|(path, _)| format!("{}: no `mod` declaration leads to it", path.display())).collect()
}

/// The names right below a path's start: one, or those of a `{…}` list.
fn first_names(tokens: &[String]) -> Vec<String> {
    if tokens.first().is_none_or(|token| token != "{") {
        return tokens.first().cloned().into_iter().collect();
    }
    let (mut depth, mut names, mut expect) = (0_usize, Vec::new(), false);
    for token in tokens {
        match token.as_str() {
            "{" => {
                depth += 1;
                expect = depth == 1;
            }
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," => expect = depth == 1,
            name if expect => {
                names.push(name.to_owned());
                expect = false;
            }
            _ => {}
        }
    }
    names
}

/// How many inline `mod x {` are open at the end of `tokens`.
fn inline_depth(tokens: &[String]) -> usize {
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => open.push(at > 1 && tokens[at - 2] == "mod"),
            "}" => drop(open.pop()),
            _ => {}
        }
    }
    open.into_iter().filter(|is_module| *is_module).count()
}

/// `metadata/docker/events.rs` is module metadata, docker, events; `mod.rs`, `lib.rs` and `main.rs` add nothing.
fn module_path(path: &Path) -> Vec<String> {
    let mut parts: Vec<String> = path
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if parts.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        parts.pop();
    }
    parts
}

fn layer_of(path: &Path) -> Option<usize> {
    let module = module_path(path);
    LAYERS.iter().position(|layer| Some(*layer) == module.first().map(String::as_str))
}

fn is_exempt(path: &Path) -> bool {
    path == Path::new("lib.rs") || path == Path::new("main.rs")
}

/// Words, `::` and single signs; comments, strings and characters are left out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length =
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            if !first.is_whitespace() {
                tokens.push(rest[..length].to_owned());
            }
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the string or character literal that `text` begins with.
fn literal(text: &str) -> Option<usize> {
    let body = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - body.len();
    if let Some(raw) = body.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = prefix + 1 + hashes + 1;
            return Some(text[start..].find(&end).map_or(text.len(), |at| start + at + end.len()));
        }
    }
    let quote = body.chars().next().filter(|c| ['"', '\''].contains(c))?;
    let mut escaped = false;
    for (at, c) in body.char_indices().skip(1) {
        if quote == '\'' && at > 1 && !body[1..].starts_with('\\') && c != '\'' {
            return None; // a lifetime
        }
        if c == quote && !escaped {
            return Some(prefix + at + 1);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

fn each(check: impl Fn(Source<'_>) -> Vec<String>) -> Vec<String> {
    sources().iter().flat_map(|(path, text)| check((path, text))).collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
                found
                    .push((path.strip_prefix(&root).expect("it was found below").to_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no source was found");
    found.sort();
    found
}

#[track_caller]
fn assert_clean(problems: &[String]) {
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
