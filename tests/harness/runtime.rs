//! Owns putting the runtime wrapper of a private seawall before a private Docker's runtime.

use std::process::{Command, Output};

use super::container::Container;
use super::docker_host::{DockerHost, succeed};
use super::seawall::Seawall;

/// The image of a container whose first instruction talks (`tests/images/firstword`).
pub(crate) const FIRST_WORD: &str = "firstword:1";

impl Seawall {
    /// `seawall runtime ARGS` for a host's Docker.
    pub(crate) fn runtime(&self, host: &DockerHost, args: &[&str]) -> Output {
        let config = host.daemon_config().display().to_string();
        self.cli(&[&["runtime"], args, &["--docker-config", &config]].concat())
    }

    /// Puts the wrapper before the host's runtime, for every container from now on.
    #[track_caller]
    pub(crate) fn install_runtime(&self, host: &DockerHost) {
        let done = self.runtime(host, &["install"]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl DockerHost {
    /// Makes the image [`FIRST_WORD`]: one program, linked statically, and nothing else.
    #[track_caller]
    pub(crate) fn import_first_word(&self) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images/firstword/main.rs");
        let program = folder.path().join("firstword");
        let mut rustc = Command::new(option_env!("RUSTC").unwrap_or("rustc"));
        rustc.args(["--edition=2024", "-Copt-level=2", "-Ctarget-feature=+crt-static", "-o"]);
        succeed(rustc.arg(&program).arg(source));
        let archive = folder.path().join("image.tar");
        let mut tar = Command::new("tar");
        succeed(tar.arg("-C").arg(folder.path()).arg("-cf").arg(&archive).arg("firstword"));
        let archive = archive.display().to_string();
        let entry = "ENTRYPOINT [\"/firstword\"]";
        self.docker_ok(&["import", "--change", entry, &archive, FIRST_WORD]);
    }
}

impl Container {
    /// Its only address of the family of `like` on the networks it has.
    #[track_caller]
    pub(crate) fn ip_like(&self, like: std::net::IpAddr) -> std::net::IpAddr {
        let mut fitting = self.ips().into_iter().filter(|ip| ip.is_ipv4() == like.is_ipv4());
        fitting.next().unwrap_or_else(|| panic!("{} has no address like {like}", self.name))
    }
}
