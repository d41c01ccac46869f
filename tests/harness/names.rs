//! Owns asking for names from inside a container.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::container::Container;
use super::docker_host::DockerHost;

impl DockerHost {
    /// Whether a name resolves inside a container, by its own resolver or by one it is told to ask.
    pub(crate) fn resolves(
        &self,
        container: &Container,
        name: &str,
        resolver: Option<&str>,
    ) -> bool {
        match resolver {
            None => self.exec_in(container, &["getent", "hosts", name]).status.success(),
            Some(resolver) => {
                // A query as RFC 1035 section 4 says: one question, type A, class IN.
                let mut query = vec![0x53, 0x57, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                for label in name.split('.') {
                    query.push(label.len() as u8);
                    query.extend(label.as_bytes());
                }
                query.extend([0, 0, 1, 0, 1]);
                asks(container, resolver, &query)
            }
        }
    }
}

/// Whether a resolver answers a query sent from inside.
fn asks(container: &Container, resolver: &str, query: &[u8]) -> bool {
    let to = SocketAddr::new(resolver.parse().expect("an address"), 53);
    container.netns().run(|| {
        let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(own).expect("a port is free");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout can be set");
        let sent = socket.connect(to).and_then(|()| socket.send(query));
        sent.and_then(|_| socket.recv(&mut [0; 512])).is_ok()
    })
}
