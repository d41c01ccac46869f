//! Owns what is asked of the host itself: who calls, cgroups, the state folder, the configuration, certificates.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::check::Check;
use crate::config::Loaded;
use crate::input::{Diagnostics, Text};

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` as bits of a capability set (`linux/capability.h`).
const NEEDED: u64 = 1 << 12 | 1 << 21;
/// Room below which what is kept may not fit: with the defaults the database grows to about 110 MB, and as much again
/// while it is put in order.
const ROOM: u64 = 256 << 20;
/// Where distributions keep the certificates that are trusted.
const CERTIFICATES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Who calls, and what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) is_root: bool,
    /// The effective set (`CapEff`, `proc(5)`).
    pub(super) capabilities: u64,
}

impl Caller {
    fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            is_root: nix::unistd::geteuid().is_root(),
            capabilities: effective(&status).unwrap_or_default(),
        }
    }

    /// Whether it may make network namespaces and change what is in them.
    pub(super) fn may_try(&self) -> bool {
        self.capabilities & NEEDED == NEEDED
    }

    #[cfg(test)]
    pub(super) fn root() -> Self {
        Self { is_root: true, capabilities: u64::MAX }
    }
}

fn effective(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

/// A folder, and the file system it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folder {
    /// Who owns it, and its rights.
    pub(super) owner: u32,
    pub(super) mode: u32,
}

/// What was found out.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) caller: Caller,
    /// `/proc/self/mounts`.
    pub(super) mounts: String,
    /// The state folder.
    pub(super) state_dir: PathBuf,
    /// None: there is none.
    pub(super) state: Result<Option<Folder>, String>,
    /// Bytes that are free where the state folder is, or will be.
    pub(super) room: Result<u64, String>,
    pub(super) config: PathBuf,
    /// Whether it is there; without it the defaults count.
    pub(super) has_config: bool,
    /// What is wrong with the configuration files.
    pub(super) problems: Option<Diagnostics>,
    /// The https webhook, if one is configured, as it may be shown.
    pub(super) https: Option<String>,
    /// A file of certificates that are trusted.
    pub(super) certificates: Option<PathBuf>,
}

/// Looks at the host. `loaded` is the configuration, as far as it could be read.
pub(super) fn read(
    config: &Path,
    state_dir: &Path,
    loaded: &Loaded,
    problems: Option<Diagnostics>,
) -> Facts {
    let webhook = loaded.config.events.sinks.webhook.as_ref().map(ToString::to_string);
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let mut files = named.into_iter().chain(CERTIFICATES.map(PathBuf::from));
    let is_filled = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|found| found.len() > 0);
    Facts {
        caller: Caller::read(),
        mounts: std::fs::read_to_string("/proc/self/mounts").unwrap_or_default(),
        state_dir: state_dir.to_path_buf(),
        state: match std::fs::metadata(state_dir) {
            Ok(found) => Ok(Some(Folder { owner: found.uid(), mode: found.mode() & 0o7777 })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        },
        room: room(state_dir),
        config: config.to_path_buf(),
        has_config: config.exists(),
        problems,
        https: webhook.filter(|shown| shown.starts_with("https:")),
        certificates: files.find(is_filled),
    }
}

/// What is free, to be used by root, where a folder is or will be made.
fn room(folder: &Path) -> Result<u64, String> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = nix::sys::statvfs::statvfs(there).map_err(|error| error.to_string())?;
    // The numbers' types differ between architectures.
    #[allow(clippy::useless_conversion, reason = "they are not u64 everywhere")]
    Ok(u64::from(found.blocks_free()) * u64::from(found.fragment_size()))
}

pub(super) fn judge(facts: &Facts) -> Vec<Check> {
    vec![
        permission(facts.caller),
        cgroups(&facts.mounts),
        state(facts),
        space(facts),
        configuration(facts),
        certificates(facts),
    ]
}

fn permission(caller: Caller) -> Check {
    const ID: &str = "host.permission";
    if caller.may_try() && caller.is_root {
        return Check::ok(ID, "root, with CAP_NET_ADMIN and CAP_SYS_ADMIN");
    }
    let found = match caller.is_root {
        true => "root, but without CAP_NET_ADMIN or CAP_SYS_ADMIN",
        false => "not root",
    };
    Check::warning(
        ID,
        found,
        "not everything can be looked at; the daemon would not run like this",
        "sudo seawall doctor",
    )
}

fn cgroups(mounts: &str) -> Check {
    const ID: &str = "host.cgroups";
    let has = |kind: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(kind));
    match (has("cgroup"), has("cgroup2")) {
        (false, true) => Check::ok(ID, "version 2"),
        (true, true) => Check::ok(ID, "version 1, with version 2 beside it"),
        (true, false) => Check::ok(ID, "version 1"),
        (false, false) => Check::warning(
            ID,
            "no cgroup file system is mounted",
            "a process whose number was given away cannot be told by its cgroup from the container's that had it",
            "mount one: mount -t cgroup2 none /sys/fs/cgroup",
        ),
    }
}

fn state(facts: &Facts) -> Check {
    const ID: &str = "host.state";
    let path = facts.state_dir.display();
    match &facts.state {
        Err(why) => Check::unknown(ID, format!("{path} cannot be looked at: {}", Text::new(why))),
        Ok(None) => Check::ok(ID, format!("{path} is not there yet; the daemon makes it")),
        Ok(Some(folder)) if folder.owner == 0 && folder.mode & 0o022 == 0 => {
            Check::ok(ID, format!("{path} is root's"))
        }
        Ok(Some(folder)) => Check::missing(
            ID,
            &[5],
            format!(
                "others than root may write to {path} (owner {}, mode {:04o})",
                folder.owner, folder.mode
            ),
            "they can set modes, and put another program in the place of the runtime wrapper",
            format!("chown root {path} && chmod go-w {path}"),
        ),
    }
}

fn space(facts: &Facts) -> Check {
    const ID: &str = "host.space";
    let path = facts.state_dir.display();
    let room = match &facts.room {
        Ok(room) => *room,
        Err(why) => return Check::unknown(ID, format!("{path}: {}", Text::new(why))),
    };
    let found = format!("{} MiB free at {path}", room >> 20);
    if room >= ROOM {
        return Check::ok(ID, found);
    }
    Check::warning(
        ID,
        found,
        "what is seen is kept in memory only and lost when the daemon ends, and modes cannot be set; verdicts stay",
        "make room, or lower events.keep_rows in seawall.toml",
    )
}

fn configuration(facts: &Facts) -> Check {
    const ID: &str = "host.configuration";
    let path = facts.config.display();
    let Some(problems) = &facts.problems else {
        let there = if facts.has_config { "" } else { " (not there: defaults)" };
        return Check::ok(ID, format!("{path}{there} and the files beside it are good"));
    };
    let first = problems.clone().sorted().into_iter().next();
    let told = first.map(|first| format!("{}: {}", first.place, first.message)).unwrap_or_default();
    let more = match problems.iter().count() {
        0 | 1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Check::missing(
        ID,
        &[1],
        format!("{told}{more}"),
        "a daemon that starts now, as after a boot, ends at once, and new containers get no policy; what is in force stays",
        "seawall check",
    )
}

fn certificates(facts: &Facts) -> Check {
    const ID: &str = "host.certificates";
    match (&facts.https, &facts.certificates) {
        (None, _) => Check::ok(ID, "no https webhook is configured"),
        (Some(_), Some(file)) => Check::ok(ID, format!("{}", file.display())),
        (Some(webhook), None) => Check::warning(
            ID,
            format!("no file of trusted certificates, but {webhook} is configured"),
            "no event reaches the webhook",
            "install the package ca-certificates",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Outcome;
    use super::*;

    fn facts() -> Facts {
        Facts {
            caller: Caller::root(),
            mounts: "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n".to_owned(),
            state_dir: "/var/lib/seawall".into(),
            state: Ok(Some(Folder { owner: 0, mode: 0o755 })),
            room: Ok(10 << 30),
            config: "/etc/seawall/seawall.toml".into(),
            has_config: true,
            problems: None,
            https: None,
            certificates: None,
        }
    }

    #[test]
    fn a_good_host_has_nothing_to_be_told_of() {
        let checks = judge(&facts());
        assert!(checks.iter().all(|check| check.result == Outcome::Ok), "{checks:#?}");
    }

    #[test]
    fn each_fault_of_a_host_is_told() {
        type Change = fn(&mut Facts);
        let cases: [(&str, Change, Outcome); 9] = [
            ("host.permission", |facts| facts.caller.is_root = false, Outcome::Warning),
            ("host.permission", |facts| facts.caller.capabilities = 1 << 12, Outcome::Warning),
            ("host.cgroups", |facts| facts.mounts.clear(), Outcome::Warning),
            (
                "host.state",
                |facts| facts.state = Ok(Some(Folder { owner: 1, mode: 0o755 })),
                Outcome::Missing,
            ),
            (
                "host.state",
                |facts| facts.state = Ok(Some(Folder { owner: 0, mode: 0o777 })),
                Outcome::Missing,
            ),
            ("host.state", |facts| facts.state = Err("no".to_owned()), Outcome::Unknown),
            ("host.space", |facts| facts.room = Ok(0), Outcome::Warning),
            ("host.space", |facts| facts.room = Err("no".to_owned()), Outcome::Unknown),
            (
                "host.certificates",
                |facts| facts.https = Some("https://h".to_owned()),
                Outcome::Warning,
            ),
        ];
        for (id, change, result) in cases {
            let mut facts = facts();
            change(&mut facts);
            let checks = judge(&facts);
            let bad: Vec<_> = checks.iter().filter(|one| one.result != Outcome::Ok).collect();
            assert_eq!(bad.len(), 1, "{id}: {checks:#?}");
            assert_eq!((bad[0].id, bad[0].result), (id, result));
        }
    }

    #[test]
    fn the_effective_capabilities_are_read() {
        assert_eq!(
            effective("Name:\tx\nCapPrm:\t01\nCapEff:\t000001ffffffffff\n"),
            Some(0x1ff_ffff_ffff)
        );
        assert_eq!(effective("Name:\tx\n"), None);
    }

    #[test]
    fn a_broken_configuration_is_told_by_its_first_problem() {
        let file = crate::input::diagnostic::SourceFile { name: Path::new("s.toml"), text: "a\nb" };
        let mut problems = Diagnostics::new();
        problems.push(file.problem(&(2..3), "x/y", "second"));
        problems.push(file.problem(&(0..1), "x/y", "first"));
        let checks = judge(&Facts { problems: Some(problems), ..facts() });
        let told = &checks.iter().find(|one| one.id == "host.configuration").unwrap();
        assert_eq!(told.found, "s.toml:1:1: first (and 1 more)");
        assert_eq!(told.result, Outcome::Missing);
    }
}
