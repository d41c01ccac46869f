//! Pure layer: what the documentation shows is true. Links lead somewhere, configuration blocks parse with the real
//! parsers, commands print what is shown, and the files and tests that are named exist.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use seawall::config::Config;
use seawall::input::diagnostic::SourceFile;
use seawall::model::Catalogue;
use seawall::policy::operator;

/// What `[events]` and `[metrics]` know.
const EVENT_KEYS: [&str; 8] = [
    "events.keep_days",
    "events.keep_rows",
    "events.journald",
    "events.file",
    "events.file_mib",
    "events.syslog",
    "events.webhook",
    "metrics.listen",
];

/// A fenced block.
struct Block {
    /// What stands behind the opening fence: `toml policy`, `console`.
    info: String,
    lines: Vec<String>,
    /// The line of the opening fence, from 1.
    line: usize,
}

/// One file.
struct Page {
    /// From the repository's root.
    path: PathBuf,
    text: String,
}

/// What a `console` block shows of one command.
struct Shown {
    command: String,
    output: Vec<String>,
    /// What `$ echo $?` shows after it.
    code: Option<i32>,
    line: usize,
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        for target in links(&page.text) {
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            if file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            let folder = page.path.parent().unwrap_or(Path::new(""));
            let meant = if file.is_empty() {
                root().join(&page.path)
            } else {
                root().join(folder).join(file)
            };
            if !meant.exists() {
                wrong.push(format!("{}: {target}", page.path.display()));
            } else if !anchor.is_empty() {
                let text = std::fs::read_to_string(&meant).unwrap();
                if !anchors(&text).contains(anchor) {
                    wrong.push(format!("{}: {target} (no such heading)", page.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere:\n{}", wrong.join("\n"));
}

#[test]
fn every_configuration_block_parses() {
    let builtin = Catalogue::builtin().unwrap();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for page in pages() {
        for block in blocks(&page.text) {
            let text = block.lines.join("\n");
            let file = SourceFile { name: &page.path, text: &text };
            let problems = match block.info.as_str() {
                "toml config" => Config::parse(file).err(),
                "toml policy" => operator::parse(&[file], &builtin).err(),
                "toml models" => Catalogue::with_files(&[file]).err(),
                info if info.starts_with("toml") => {
                    wrong.push(format!(
                        "{}:{}: `{info}` is neither config, policy nor models",
                        page.path.display(),
                        block.line
                    ));
                    continue;
                }
                _ => continue,
            };
            seen.insert(block.info.clone());
            if let Some(problems) = problems {
                wrong.push(format!("block at {}:{}\n{problems}", page.path.display(), block.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(seen.len(), 3, "each of the three kinds is shown somewhere: {seen:?}");
}

#[test]
fn every_command_prints_what_is_shown() {
    let mut ran = 0;
    let mut wrong = Vec::new();
    for page in pages() {
        for block in blocks(&page.text).into_iter().filter(|block| block.info == "console") {
            for shown in commands(&block) {
                let Some(arguments) = offline_arguments(&shown.command) else { continue };
                ran += 1;
                let (output, code) = run(&arguments);
                let place = format!("{}:{}: `{}`", page.path.display(), shown.line, shown.command);
                match shown.code {
                    Some(expected) if expected != code => {
                        wrong.push(format!("{place}: exit code {code}, shown is {expected}"));
                    }
                    None if code > 1 => wrong.push(format!("{place}: exit code {code}\n{output}")),
                    _ => {}
                }
                let printed: Vec<String> = output.lines().map(normalised).collect();
                let expected: Vec<String> =
                    shown.output.iter().map(|line| normalised(line)).collect();
                if !expected.is_empty() && !fits(&expected, &printed) {
                    wrong.push(format!("{place}: prints something else:\n{output}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(ran >= 10, "only {ran} commands were run");
}

#[test]
fn every_file_and_every_test_that_is_named_exists() {
    let sources = sources();
    let mut wrong = Vec::new();
    for page in pages() {
        for word in code_words(&page.text) {
            let is_path = ["src/", "tests/", "examples/"].iter().any(|top| word.starts_with(top));
            let path = word.split(':').next().unwrap_or_default();
            if is_path && !word.contains('*') && !root().join(path).exists() {
                wrong.push(format!("{}: {word}", page.path.display()));
            }
            if is_sentence(&word) && !sources.contains(&format!("fn {word}(")) {
                wrong.push(format!("{}: there is no test {word}", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_and_every_setting_has_its_place() {
    let (help, _) = run(&["--help".to_owned()]);
    let commands_page = read("docs/commands.md");
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<&str> = listed
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(names.len() >= 10, "the commands are read from the help: {names:?}");
    for name in names {
        assert!(commands_page.contains(&format!("## seawall {name}")), "{name} has no section");
    }
    let configuration = read("docs/configuration.md");
    let keys = [
        "mode",
        "unknown",
        "labels",
        "host",
        "resolvers",
        "docker.host",
        "docker.config",
        "containerd.address",
    ];
    for key in keys.into_iter().chain(["deny.ingress", "deny.egress"]).chain(EVENT_KEYS) {
        assert!(configuration.contains(&format!("`{key}`")), "the setting {key} is not described");
    }
}

#[test]
fn every_check_of_doctor_is_explained_and_no_other() {
    let (list, code) = run(&["doctor".to_owned(), "--list".to_owned()]);
    assert_eq!(code, 0, "{list}");
    let made: Vec<&str> =
        list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert!(made.len() > 30, "{list}");
    let page = read("docs/doctor.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let explained: Vec<(&str, &str)> = rows.filter(|(id, _)| id.contains('.')).collect();
    let ids: Vec<&str> = explained.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, made, "in the order they are made");
    for (id, row) in explained {
        let is_told = ["*warning", "*missing", "never;"].iter().any(|word| row.contains(word));
        assert!(is_told, "{id}: it is not said why it is not ok");
        let has_remedy =
            row.starts_with("never;") || !row.trim_end_matches('|').trim().ends_with('|');
        assert!(has_remedy, "{id}: it is not said what to do");
    }
}

#[test]
fn the_control_sockets_description_names_every_route_and_no_other() {
    let server = std::fs::read_to_string(root().join("src/api/server.rs")).unwrap();
    let mut routes = BTreeSet::new();
    for line in server.lines().filter_map(|line| line.trim().strip_prefix(".route(\"")) {
        let (path, handlers) = line.split_once('"').unwrap();
        for method in ["get", "post"] {
            if handlers.contains(&format!("{method}(")) {
                routes.insert(format!("{method} {path}"));
            }
        }
    }
    assert!(routes.len() > 8, "{routes:?}");
    let text = std::fs::read_to_string(root().join("docs/openapi.yaml")).unwrap();
    let described: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let mut named = BTreeSet::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            named.insert(format!("{method} {path}"));
        }
    }
    assert_eq!(named, routes);
    // Every reference leads somewhere.
    for reference in text.split("$ref: \"#/").skip(1) {
        let pointer = format!("/{}", reference.split('"').next().unwrap());
        assert!(described.pointer(&pointer).is_some(), "{pointer}");
    }
}

#[test]
fn wildcards_stand_for_lines_and_for_parts_of_lines() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let fits = |shown: &str, printed: &str| fits(&lines(shown), &lines(printed));
    assert!(fits("a\nb", "a\nb"));
    assert!(fits("a\n…\nd", "a\nb\nc\nd"));
    assert!(fits("a\n…", "a"));
    assert!(fits("x … z", "x y z"));
    assert!(!fits("a", "a\nb"));
    assert!(!fits("a\n…\nd", "a\nb"));
    assert!(!fits("x … z", "x y"));
    let block =
        "a\n```console\n$ seawall resolve x\nfine\n$ echo $?\n0\n$ sudo seawall apply\n```\n";
    let found = blocks(block);
    let shown = commands(&found[0]);
    assert_eq!(shown.len(), 2);
    assert_eq!((shown[0].output.as_slice(), shown[0].code), (&["fine".to_owned()][..], Some(0)));
    assert!(offline_arguments(&shown[0].command).is_some());
    assert!(offline_arguments(&shown[1].command).is_none());
    assert!(offline_arguments("seawall plan").is_none());
    assert!(offline_arguments("seawall plan --from x | less").is_none());
    assert_eq!(links("see [a](b.md), [c](d.md#e) and `[x](y)`"), ["b.md", "d.md#e"]);
    assert!(anchors("## The `x`: a, b!\n").contains("the-x-a-b"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// README.md and everything below docs/.
fn pages() -> Vec<Page> {
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| Page { text: std::fs::read_to_string(root().join(&path)).unwrap(), path })
        .collect()
}

/// All Rust source, in one text.
fn sources() -> String {
    let mut text = String::new();
    let mut folders = vec![root().join("src"), root().join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    text
}

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => found.push(block),
            (Some(info), None) => {
                open = Some(Block {
                    info: info.trim().to_owned(),
                    lines: Vec::new(),
                    line: number + 1,
                });
            }
            (None, Some(mut block)) => {
                block.lines.push(line.to_owned());
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    found
}

/// The text without fenced blocks, line by line.
fn prose(text: &str) -> Vec<&str> {
    let mut is_open = false;
    let mut kept = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_open = !is_open;
        } else if !is_open {
            kept.push(line);
        }
    }
    kept
}

/// Targets of `[text](target)` outside code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let plain: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
        let targets = plain.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        found.extend(targets.map(|(target, _)| target.to_owned()));
    }
    found
}

/// What headings can be linked by: lower case, blanks as dashes, nothing but letters, digits, `-` and `_`.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).into_iter().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
        })
        .collect()
}

/// What stands between single backticks.
fn code_words(text: &str) -> Vec<String> {
    let lines = prose(text);
    lines.iter().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Whether a word is a test's name: a sentence of four words or more.
fn is_sentence(word: &str) -> bool {
    let is_name = word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    // Metrics are words of that form too.
    is_name
        && !word.starts_with("seawall_")
        && word.split('_').filter(|part| !part.is_empty()).count() >= 4
}

fn commands(block: &Block) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let mut awaits_code = false;
    for (number, line) in block.lines.iter().enumerate() {
        if line == "$ echo $?" {
            awaits_code = true;
        } else if let Some(command) = line.strip_prefix("$ ") {
            found.push(Shown {
                command: command.to_owned(),
                output: Vec::new(),
                code: None,
                line: block.line + number + 1,
            });
        } else if let Some(last) = found.last_mut() {
            if awaits_code {
                last.code = line.parse().ok();
                awaits_code = false;
            } else {
                last.output.push(line.clone());
            }
        }
    }
    found
}

/// The arguments of a command that needs neither root nor Docker nor a shell; `None` for all others.
fn offline_arguments(command: &str) -> Option<Vec<String>> {
    let arguments = command.strip_prefix("seawall ")?;
    if arguments.contains(['|', '<', '>', '&', ';', '$', '"', '\'', '…']) {
        return None;
    }
    let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    let is_offline = match words.first().map(String::as_str)? {
        "check" => has("--config"),
        "doctor" => has("--list"),
        "resolve" => !has("--container"),
        "policy" | "plan" | "test" | "learn" | "suggest-group" => has("--from"),
        _ => false,
    };
    (is_offline && !has("-")).then_some(words)
}

/// Runs seawall from the repository's root, with an empty configuration unless the arguments name one.
fn run(arguments: &[String]) -> (String, i32) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("seawall.toml");
    std::fs::write(&config, "").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(arguments)
        .current_dir(root())
        .env("SEAWALL_CONFIG", &config)
        .env_remove("DOCKER_HOST")
        .env_remove("SEAWALL_LOG")
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.code().unwrap())
}

/// A line with what may differ and means nothing taken out: blanks at its end, and the lines of the built-in catalogue.
fn normalised(line: &str) -> String {
    let mut parts = line.trim_end().split("models.toml:");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("models.toml:");
        text.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':'));
    }
    text
}

/// Whether lines are as shown. `…` alone is any number of lines, within a line it is any text.
fn fits(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((first, rest)) if first.trim() == "…" => {
            (0..=printed.len()).any(|skipped| fits(rest, &printed[skipped..]))
        }
        Some((first, rest)) => printed
            .split_first()
            .is_some_and(|(line, others)| fits_line(first, line) && fits(rest, others)),
    }
}

fn fits_line(shown: &str, line: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return shown == line };
    let Some(mut line) = line.strip_prefix(start) else { return false };
    let mut pieces: Vec<&str> = rest.split('…').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match line.find(piece) {
            Some(at) => line = &line[at + piece.len()..],
            None => return false,
        }
    }
    line.ends_with(end)
}
