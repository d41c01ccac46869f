//! Owns the manual pages: one for each command, made of what its help says.

use std::io::{self, Write};
use std::path::Path;

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Files an operator works with, and what they are (`docs/configuration.md`).
const FILES: [(&str, &str); 5] = [
    ("/etc/seawall/seawall.toml", "configuration; without it seawall only observes"),
    ("/etc/seawall/policy.d/*.toml", "what operators allow and deny"),
    ("/etc/seawall/models.d/*.toml", "models of one's own applications"),
    ("/run/seawall/seawall.sock", "control socket; root and the group seawall may ask"),
    ("/var/lib/seawall", "state"),
];

/// Writes the page of a command and those of its subcommands into an existing folder.
pub(super) fn write(command: Command, folder: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let source = format!("seawall {}", command.get_version().unwrap_or_default());
    write_all(&command, &source, folder, &[])
}

fn write_all(command: &Command, source: &str, folder: &Path, parents: &[String]) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let shown = || command.get_subcommands().filter(|below| !below.is_hide_set());
    let below = shown().filter_map(Command::get_display_name).map(str::to_owned);
    let related: Vec<String> = parents.iter().cloned().chain(below).collect();
    let page = page(command, source, parents.is_empty(), &related)?;
    std::fs::write(folder.join(format!("{name}.1")), page)?;
    let parents: Vec<String> = parents.iter().cloned().chain([name]).collect();
    shown().try_for_each(|below| write_all(below, source, folder, &parents))
}

fn page(command: &Command, source: &str, is_top: bool, related: &[String]) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let command = command.clone().subcommand_help_heading("COMMANDS");
    let has_commands = command.get_subcommands().any(|below| !below.is_hide_set());
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command).source(source).manual("Firewall for containers");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    let mut more = Roff::new();
    after.split("\n\n").filter(|part| !part.is_empty()).for_each(|part| add(&mut more, part));
    if is_top {
        more.control("SH", ["FILES"]);
        for (path, what) in FILES {
            more.control("TP", []).text([bold(path)]).text([roman(what)]);
        }
    }
    more.control("SH", ["SEE ALSO"]);
    let names: Vec<_> = related.iter().map(|name| format!("{name}(1)")).collect();
    more.text([roman(names.join(", "))]);
    more.text([roman("The documentation is in /usr/share/doc/seawall.")]);
    more.to_writer(&mut page)?;
    page.flush()?;
    Ok(page)
}

/// A part of what stands after a command's options: examples, which keep their lines, or a text with a title before a colon.
fn add(page: &mut Roff, part: &str) {
    let (title, text) = part.split_once(':').unwrap_or(("Notes", part));
    if title.starts_with("Example") {
        page.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in text.lines().skip(1) {
            page.text([roman(line.trim_start())]);
        }
        page.control("fi", []);
    } else {
        page.control("SH", [title.to_uppercase().as_str()]).text([roman(text.trim())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_the_lines_of_examples_and_names_its_relatives() {
        let command = Command::new("tool")
            .version("1.2")
            .about("Does it")
            .after_help("Examples:\n  tool a   this\n  tool b   that\n\nExit codes: 0 done")
            .subcommand(Command::new("part").about("Does a part").arg(clap::arg!(--fast "Soon")))
            .subcommand(Command::new("secret").hide(true));
        let folder = tempfile::tempdir().unwrap();
        write(command, folder.path()).unwrap();
        let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let top = read("tool.1");
        assert!(top.contains(".nf\ntool a   this\ntool b   that\n.fi"), "{top}");
        assert!(top.contains(".SH \"EXIT CODES\"\n0 done"), "{top}");
        assert!(top.contains("tool\\-part(1)") && top.contains("seawall.toml"), "{top}");
        assert!(!top.contains("secret"), "{top}");
        let part = read("tool-part.1");
        assert!(part.contains("tool\\-part \\- Does a part"), "{part}");
        assert!(part.contains("\\-\\-fast") && part.contains("tool(1)"), "{part}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
