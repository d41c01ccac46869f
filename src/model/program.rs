//! Owns finding the program a workload runs among the shells and wrappers that start it.

use crate::metadata::ImageFacts;

/// Programs that only start another one, named by their next word.
const WRAPPERS: [&str; 17] = [
    "tini",
    "tini-static",
    "dumb-init",
    "catatonit",
    "docker-init",
    "init",
    "env",
    "exec",
    "nohup",
    "nice",
    "ionice",
    "stdbuf",
    "time",
    "sudo",
    "with-contenv",
    "xvfb-run",
    "setsid",
];

/// Wrappers whose next word is a user.
const USER_WRAPPERS: [&str; 5] = ["gosu", "su-exec", "setuidgid", "s6-setuidgid", "runuser"];

const SHELLS: [&str; 6] = ["sh", "bash", "ash", "dash", "zsh", "ksh"];

/// The name, without path, of the program that entrypoint and command come down to; `None` when only
/// wrappers, options or nothing are there.
pub(super) fn program(image: &ImageFacts) -> Option<String> {
    let words: Vec<&str> =
        image.entrypoint.iter().chain(&image.cmd).map(crate::input::Text::as_str).collect();
    find(&words, true)
}

/// Whether `program` is `command`, perhaps with a version behind it: `python3.12`, `php-fpm8.2`.
pub(super) fn is_command(program: &str, command: &str) -> bool {
    program == command
        || program.trim_end_matches(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-'))
            == command
}

/// `is_outermost` is false within a shell's script, where a further script is not looked into.
fn find(words: &[&str], is_outermost: bool) -> Option<String> {
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let name = word.rsplit('/').next().unwrap_or(word);
        let is_no_program = name.is_empty()
            || name.starts_with('-')
            || name.contains('=')
            || name.bytes().all(|b| b.is_ascii_digit());
        if is_no_program || WRAPPERS.contains(&name) || name.contains("entrypoint") {
            continue;
        }
        if USER_WRAPPERS.contains(&name) {
            rest.next();
        } else if name.starts_with("wait-for") {
            // `wait-for-it.sh db:5432 -- program`
            rest.find(|word| **word == "--");
        } else if SHELLS.contains(&name) {
            let rest = rest.as_slice();
            return match rest.iter().position(|word| is_script_flag(word)) {
                Some(0) if is_outermost => find_in_script(rest.get(1)?),
                _ => find(rest, is_outermost),
            };
        } else {
            return Some(name.to_owned());
        }
    }
    None
}

/// `-c`, `-ec`, `-lc`: the next word is a script.
fn is_script_flag(word: &str) -> bool {
    word.starts_with('-') && !word.starts_with("--") && word.ends_with('c')
}

/// The program of a script's last command: the one that stays.
fn find_in_script(script: &str) -> Option<String> {
    let last = script
        .split(['\n', ';'])
        .flat_map(|line| line.split("&&"))
        .filter(|command| command.contains(|c: char| c.is_ascii_alphanumeric()))
        .last()?;
    find(&last.split_whitespace().collect::<Vec<_>>(), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(entrypoint: &[&str], cmd: &[&str]) -> Option<String> {
        let texts = |words: &[&str]| words.iter().map(|word| (*word).into()).collect();
        program(&ImageFacts {
            entrypoint: texts(entrypoint),
            cmd: texts(cmd),
            ..ImageFacts::default()
        })
    }

    #[test]
    fn the_program_is_found_behind_its_wrappers() {
        let cases: [(&[&str], &[&str], Option<&str>); 19] = [
            (&["docker-entrypoint.sh"], &["postgres"], Some("postgres")),
            (&[], &["/usr/local/bin/node", "server.js"], Some("node")),
            (&["/bin/sh", "-c"], &["node server.js"], Some("node")),
            (&[], &["/bin/sh", "-c", "exec gunicorn app:app"], Some("gunicorn")),
            (&[], &["bash", "-lc", "python manage.py migrate && uvicorn a:b"], Some("uvicorn")),
            (&["/bin/sh", "-c"], &["nginx -g 'daemon off;'"], Some("nginx")),
            (
                &["/sbin/tini", "-g", "--", "/docker-entrypoint.sh"],
                &["redis-server"],
                Some("redis-server"),
            ),
            (&["dumb-init", "gosu", "app", "java"], &["-jar", "a.jar"], Some("java")),
            (&["/usr/bin/env", "LANG=", "ruby"], &["app.rb"], Some("ruby")),
            (&["bash", "/docker-entrypoint.sh"], &["nginx"], Some("nginx")),
            (&["./wait-for-it.sh", "db:5432", "--", "node"], &[], Some("node")),
            (&["./start.sh"], &[], Some("start.sh")),
            (&["/docker-entrypoint.sh"], &[], None),
            (&["/docker-entrypoint.sh"], &["--port", "1"], None),
            (&["sh"], &[], None),
            (&["sh", "-c"], &[], None),
            (&["sh", "-c"], &["sh -c nginx"], Some("nginx")),
            (&["/"], &[""], None),
            (&[], &[], None),
        ];
        for (entrypoint, cmd, wanted) in cases {
            assert_eq!(run(entrypoint, cmd).as_deref(), wanted, "{entrypoint:?} {cmd:?}");
        }
    }

    #[test]
    fn a_version_behind_the_name_is_the_same_program() {
        for (program, command, wanted) in [
            ("python3.12", "python", true),
            ("php-fpm8.2", "php-fpm", true),
            ("postgres-16", "postgres", true),
            ("node", "node", true),
            ("node_exporter", "node", false),
            ("nodejs", "node", false),
            ("3", "", true),
        ] {
            assert_eq!(is_command(program, command), wanted, "{program}");
        }
    }

    #[test]
    fn nested_shells_end() {
        let words: Vec<&str> = std::iter::repeat_n("sh", 1_000).collect();
        assert_eq!(run(&words, &["-c", "sh -c sh"]), None);
    }
}
