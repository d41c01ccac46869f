//! Owns the slow transfer of tests: a client that tells how far it is, and ends its control connection when asked.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// What is on its way when it is stopped is read within so many reports.
const DRAINED: usize = 8;
/// Reports that are compared, a second's.
const COMPARED: usize = 5;
const PATIENCE: Duration = Duration::from_secs(10);

/// A transfer that goes on until it is stopped.
pub(crate) struct Transfer {
    client: Child,
    reports: Receiver<String>,
}

impl Transfer {
    /// Starts `tests/ftp/client.py slow …`, as `command` runs it, and returns when bytes flow.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut client = command.spawn().unwrap();
        let lines = BufReader::new(client.stdout.take().unwrap()).lines();
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut transfer = Self { client, reports };
        assert!(transfer.flow() > 0, "it never began");
        transfer
    }

    /// How many bytes came in the next second.
    pub(crate) fn flow(&mut self) -> u64 {
        self.reports.try_iter().for_each(drop);
        let reports: Vec<u64> = (0..=COMPARED).map(|_| self.report()).collect();
        reports[COMPARED] - reports[0]
    }

    /// How many bytes came in a second, when what was on its way has arrived.
    pub(crate) fn flow_later(&mut self) -> u64 {
        self.reports.try_iter().for_each(drop);
        for _ in 0..DRAINED {
            self.report();
        }
        self.flow()
    }

    /// Ends the control connection, and leaves the data connection open.
    pub(crate) fn end_control(&mut self) {
        self.client.stdin.as_mut().unwrap().write_all(b"end\n").unwrap();
    }

    fn report(&mut self) -> u64 {
        let line = self.reports.recv_timeout(PATIENCE).unwrap();
        line.parse().unwrap_or_else(|_| panic!("{line}"))
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
