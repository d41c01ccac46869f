//! Connections to Docker and containerd that are cut: nothing that happened meanwhile may be missed.

use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::load::{Leaks, Load, Moments, assert_nothing_is_left};
use crate::chaos::ENFORCE;
use crate::harness::{DockerHost, Lab, Seawall};

const CUTS: usize = 30;
const BETWEEN: Duration = Duration::from_millis(700);

/// Passes everything on, until it is told to cut what there is.
struct Line {
    folder: TempDir,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Line {
    fn to(target: PathBuf) -> Self {
        let line = Self { folder: tempfile::tempdir().unwrap(), open: Arc::default() };
        let listener = UnixListener::bind(line.socket()).unwrap();
        let open = Arc::clone(&line.open);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = UnixStream::connect(&target) else { continue };
                let pairs = [
                    (client.try_clone(), server.try_clone()),
                    (server.try_clone(), client.try_clone()),
                ];
                open.lock().unwrap().extend([client, server]);
                for (from, to) in pairs {
                    let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
                    std::thread::spawn(move || {
                        let result = std::io::copy(&mut from, &mut to);
                        to.shutdown(Shutdown::Both).and(result)
                    });
                }
            }
        });
        line
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }

    /// Cuts every connection; new ones may be made at once. How many there were.
    fn cut(&self) -> usize {
        let open = std::mem::take(&mut *self.open.lock().unwrap());
        open.iter().filter(|stream| stream.shutdown(Shutdown::Both).is_ok()).count()
    }
}

#[test]
fn cut_event_streams_lose_nothing_that_happened() {
    let host = DockerHost::start();
    let lab = Lab::up(&host);
    let lines = [Line::to(host.socket()), Line::to(host.containerd_socket())];
    let mut seawall = Seawall::prepare(&host, ENFORCE);
    seawall.configure(ENFORCE, &lines[0].socket(), &lines[1].socket());
    seawall.run();
    lab.assert_verdicts(&host, "at first");
    let mut flows = lab.flows(&host);
    let (prober, leaks) = (lab.prober(), Leaks::watch(&host, &lab));
    let (mut moments, load) = (Moments::new(), Load::start(&host));
    let mut cut = 0;
    for _ in 0..CUTS {
        moments.pass(BETWEEN);
        // One of them, the other, or both.
        let which = moments.below(3);
        let chosen = lines.iter().enumerate().filter(|(number, _)| *number as u64 != which);
        cut += chosen.map(|(_, line)| line.cut()).sum::<usize>();
    }
    let starts = load.finish();
    assert_nothing_is_left(&host, &seawall);
    flows.assert_alive("after the cuts");
    lab.assert_verdicts(&host, "after the cuts");
    let (attempts, successes) = prober.finish();
    let leaked = leaks.finish();
    println!(
        "{CUTS} cuts of {cut} ends of connections, {starts} containers meanwhile: {attempts} denied attempts, \
         {successes} succeeded, {leaked} packets leaked, 0 of 3 allowed connections broken"
    );
    assert_eq!((successes, leaked), (0, 0));
    assert_eq!(seawall.log_at("ERROR"), Vec::<String>::new());
}
