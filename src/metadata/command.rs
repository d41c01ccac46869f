//! Owns what is kept of a command line: enough to recognise a program, nothing that could be a secret.

use crate::input::Text;

/// How many words are kept.
const WORDS: usize = 3;

/// Parts of option names whose argument is a secret.
const SECRET_MARKS: [&str; 8] = ["pass", "secret", "token", "key", "auth", "cred", "pwd", "user"];

/// The first three words of a command, of each nothing after a `=` or a `://`; an argument of an option that takes a
/// secret (`--requirepass x`, `-p x`, `-px`) becomes `…`. Arguments with blanks in them (`sh -c '…'`) count as several words.
pub fn redacted<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Vec<Text> {
    let mut words = Vec::new();
    let mut is_argument_secret = false;
    for word in arguments.into_iter().flat_map(str::split_whitespace).take(WORDS) {
        let option = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        let is_short = option.is_some() && !word.starts_with("--");
        let kept = match option {
            None if is_argument_secret => "…",
            _ if is_short && word[1..].starts_with(['p', 'a', 'u', 'k']) => &word[..2],
            _ => match (word.find('='), word.find("://")) {
                (Some(equals), Some(slashes)) => &word[..equals.min(slashes)],
                (Some(end), None) | (None, Some(end)) => &word[..end],
                (None, None) => word,
            },
        };
        let name = option.unwrap_or_default().to_ascii_lowercase();
        is_argument_secret = SECRET_MARKS.iter().any(|mark| name.contains(mark))
            || (is_short && kept.len() == 2 && matches!(&kept[1..], "p" | "a" | "u" | "k"));
        words.push(Text::new(kept));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_stay_recognisable_and_secrets_go() {
        let cases: &[(&[&str], &str)] = &[
            (&["docker-entrypoint.sh", "postgres"], "docker-entrypoint.sh postgres"),
            (&["redis-server", "--requirepass", "hunter2"], "redis-server --requirepass …"),
            (&["sh", "-c", "redis-server --requirepass hunter2"], "sh -c redis-server"),
            (&["mysql", "-phunter2"], "mysql -p"),
            (&["mysql", "-p", "hunter2"], "mysql -p …"),
            (&["app", "--token=hunter2"], "app --token"),
            (&["psql", "postgres://u:hunter2@db/x"], "psql postgres"),
            (&["sh", "-c", "PASSWORD=hunter2 exec app"], "sh -c PASSWORD"),
            (&["python", "-m", "gunicorn", "hunter2"], "python -m gunicorn"),
            (&["-", "é", "--"], "- é --"),
            (&[], ""),
        ];
        for (arguments, expected) in cases {
            let kept: Vec<_> = redacted(arguments.iter().copied());
            let line = kept.iter().map(Text::as_str).collect::<Vec<_>>().join(" ");
            assert_eq!(line, *expected, "{arguments:?}");
        }
    }
}
