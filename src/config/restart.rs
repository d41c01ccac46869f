//! Owns which settings are read at start only, so that a changed file is obeyed whole or refused whole.

use super::Config;

impl Config {
    /// The keys read at start only that `changed` has otherwise than this one, as they are written.
    pub fn needs_restart(&self, changed: &Self) -> Vec<&'static str> {
        let (events, others) = (&self.events, &changed.events);
        let differs = [
            ("docker.host", self.docker_host != changed.docker_host),
            ("docker.config", self.docker_config != changed.docker_config),
            ("containerd.address", self.containerd_address != changed.containerd_address),
            ("ownership", self.ownership != changed.ownership),
            ("events.keep_days", events.keep_days != others.keep_days),
            ("events.keep_rows", events.keep_rows != others.keep_rows),
            ("metrics.listen", self.metrics != changed.metrics),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::input::diagnostic::SourceFile;

    fn parse(text: &str) -> Config {
        Config::parse(SourceFile { name: Path::new("seawall.toml"), text }).unwrap()
    }

    #[test]
    fn what_is_read_at_start_only_is_told_by_its_key() {
        let running = Config::default();
        let each = [
            ("docker.host", "[docker]\nhost = \"unix:///x\""),
            ("docker.config", "[docker]\nconfig = \"/x\""),
            ("containerd.address", "[containerd]\naddress = \"/x\""),
            ("ownership", "ownership = \"off\""),
            ("events.keep_days", "[events]\nkeep_days = 7"),
            ("events.keep_rows", "[events]\nkeep_rows = 700"),
            ("metrics.listen", "[metrics]\nlisten = \"127.0.0.1:9797\""),
        ];
        for (key, text) in each {
            assert_eq!(running.needs_restart(&parse(text)), [key]);
            assert_eq!(parse(text).needs_restart(&running), [key], "taking it back is a change");
        }
    }

    #[test]
    fn everything_else_is_obeyed_at_once() {
        let changed = parse(
            "mode = \"enforce\"\nunknown = \"deny\"\nlabels = \"ignore\"\nhost = false\nresolvers = []\n\
             foreign = \"report\"\n[deny]\ningress = \"reject\"\negress = \"drop\"\n[runtime]\nwait_ms = 9\n\
             fallback = \"allow\"\n[events]\nfile = \"/x\"\nfile_mib = 1\nsyslog = \"/dev/log\"\njournald = false\n\
             webhook = \"https://h/x\"\n",
        );
        assert_eq!(Config::default().needs_restart(&changed), [""; 0]);
    }
}
