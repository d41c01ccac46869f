//! Docker layer: who may ask the daemon, and that nobody who may can take from it what it needs to work.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod harness;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::{Seawall, Stage};

/// `nobody` of every Debian.
const NOBODY: u32 = 65_534;

/// Asks the socket as this user; the answer's status, or why there is none.
fn ask_as(user: u32, socket: &Path, path: &str) -> Result<String, String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "10", "--write-out", "\n%{http_code}", "--unix-socket"]);
    curl.arg(socket).arg(format!("http://seawall{path}")).uid(user).gid(user);
    let output = curl.output().unwrap();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        code => Err(format!("{code:?}")),
    }
}

fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn only_root_and_the_group_may_ask_also_where_the_file_lets_others() {
    let stage = Stage::take();
    let seawall = Seawall::start(stage.host, "mode = \"observe\"");
    let socket = seawall.socket();
    let folder = socket.parent().unwrap().to_owned();
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    open_to_all(&folder, 0o755);
    // The file's rights are one gate.
    assert_eq!(ask_as(NOBODY, &socket, "/v1/status"), Err("Some(7)".to_owned()));
    // Whoever they are, the peer is asked for, on every route.
    open_to_all(&socket, 0o666);
    for path in ["/v1/status", "/v1/journal", "/v1/flows", "/v1/denials", "/v1/events", "/v1/modes"]
    {
        let answer = ask_as(NOBODY, &socket, path).unwrap();
        assert!(answer.ends_with("\n403"), "{path}: {answer}");
        assert!(answer.contains("only root and the group seawall may ask"), "{answer}");
        assert!(ask_as(0, &socket, path).unwrap().ends_with("\n200"), "{path}");
    }
}

#[test]
fn idle_connections_take_no_descriptors_from_the_daemon_and_no_answers_from_root() {
    let stage = Stage::take();
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let settings = format!("mode = \"enforce\"\n[metrics]\nlisten = \"{metrics}\"");
    let seawall = Seawall::start(stage.host, &settings);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", seawall.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let mut numbers = files.split_whitespace().skip(3);
    assert_eq!(numbers.next(), numbers.next(), "all that is allowed: {files}");
    let before = seawall.descriptors().len();
    let own = stage.host.netns();
    // Whoever reaches the address: some hundred connections that never ask.
    let mut idle: Vec<TcpStream> =
        own.run(|| (0..500).map(|_| TcpStream::connect(metrics).unwrap()).collect());
    // Those beyond what is allowed are closed, which is seen when they are read.
    let closed = idle.iter_mut().rev().take(400).filter(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut stream: &TcpStream = stream;
        !matches!(stream.read(&mut [0]), Ok(1..))
    });
    assert_eq!(closed.count(), 400);
    let now = seawall.descriptors().len();
    assert!(now < before + 80, "{before} before, {now} with 500 connections");
    let guest = stage.host.guest(&["busybox:1", "sleep", "900"]);
    seawall.await_programmed(&guest.id);
    drop(idle);

    // Root is always answered.
    let idle: Vec<UnixStream> =
        (0..200).map(|_| UnixStream::connect(seawall.socket()).unwrap()).collect();
    seawall.cli_ok(&["status"]);
    drop(idle);
    let answer = own.run(|| {
        let mut stream = TcpStream::connect(metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer).unwrap_or_default()
    });
    assert!(answer.starts_with("HTTP/1.1 200"), "and so are metrics again: {answer}");
}
