//! A Docker whose inspections hang.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::chaos::ENFORCE;
use crate::harness::{DockerHost, Lab, Seawall, eventually};

const LIMIT: Duration = Duration::from_secs(20);

/// Passes everything on to Docker, but holds back `GET /containers/ID/json`.
struct SlowDocker(TempDir);

impl SlowDocker {
    fn before(host: &DockerHost, delay: Duration) -> Self {
        let slow = Self(tempfile::tempdir().unwrap());
        let listener = UnixListener::bind(slow.socket()).unwrap();
        let docker = host.socket();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = UnixStream::connect(&docker) else { continue };
                let (mut answers, mut to_client) = (server.try_clone()?, client.try_clone()?);
                std::thread::spawn(move || {
                    let result = std::io::copy(&mut answers, &mut to_client);
                    to_client.shutdown(Shutdown::Both).and(result)
                });
                std::thread::spawn(move || forward(client, server, delay));
            }
            std::io::Result::Ok(())
        });
        slow
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("docker.sock")
    }
}

/// Requests have no bodies here, and none is sent before the last one is answered: each reading is one request.
fn forward(mut client: UnixStream, mut server: UnixStream, delay: Duration) -> std::io::Result<()> {
    let mut request = [0; 64 << 10];
    loop {
        let length = client.read(&mut request)?;
        if length == 0 {
            return server.shutdown(Shutdown::Write);
        }
        if is_inspection(&String::from_utf8_lossy(&request[..length])) {
            std::thread::sleep(delay);
        }
        server.write_all(&request[..length])?;
    }
}

fn is_inspection(request: &str) -> bool {
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    path.contains("/containers/") && path.ends_with("/json") && !path.ends_with("/containers/json")
}

#[test]
fn a_start_is_programmed_although_docker_does_not_answer_inspections() {
    let host = DockerHost::start();
    let docker = SlowDocker::before(&host, Duration::from_secs(30));
    let mut seawall = Seawall::prepare(&host, ENFORCE);
    seawall.configure(ENFORCE, &docker.socket(), &host.containerd_socket());
    seawall.run();
    let lab = Lab::up(&host);
    for one in [&lab.store, &lab.web, &lab.intruder] {
        let entry =
            eventually("its ruleset", LIMIT, || seawall.journal_of(&one.id).into_iter().next());
        let started = ["container", "inspect", "--format", "{{.State.StartedAt}}", &one.name];
        let late = i128::from(entry.committed_us) - micros(&host.docker_ok(&started));
        println!("{}: programmed {late} µs after Docker says that it started", one.name);
        // Far below what an inspection takes; what is left is the machine's load.
        assert!(late < 1_000_000, "{}: {late} µs", one.name);
    }
    seawall.settle();
    for ip in lab.store_ips() {
        assert!(!lab.intruder.tcp(ip, crate::harness::STORE).is_reached(), "{ip}");
    }
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}

/// RFC 3339 as `date` understands it, in microseconds since 1970.
fn micros(time: &str) -> i128 {
    let output = std::process::Command::new("date").args(["-d", time, "+%s%6N"]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}
