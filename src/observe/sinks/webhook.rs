//! Owns posting events to an address, as JSON arrays.

use std::sync::Arc;
use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Error};

use super::outlet::Undelivered;
use crate::config::events::WebhookUrl;
use crate::observe::record::Event;

/// How long one request may take, with finding the host, TLS and all.
const PATIENCE: Duration = Duration::from_secs(10);

/// The receiver.
#[derive(Debug)]
pub(super) struct Webhook {
    url: WebhookUrl,
    agent: Agent,
}

/// The certificates of the host's own store.
pub(super) fn system_roots() -> RootCerts {
    RootCerts::PlatformVerifier
}

impl Webhook {
    /// `roots` are whom TLS trusts.
    pub(super) fn new(url: WebhookUrl, roots: RootCerts) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let config = Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            // Where events go is the operator's to say, not the receiver's.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("seawall/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build();
        Self { url, agent: config.new_agent() }
    }

    pub(super) fn deliver(&mut self, events: &[Arc<Event>]) -> Result<(), Undelivered> {
        let events: Vec<&Event> = events.iter().map(Arc::as_ref).collect();
        let body = serde_json::to_vec(&events)
            .map_err(|error| Undelivered::Never(format!("no JSON can be made of them: {error}")))?;
        let request = self.agent.post(self.url.secret()).content_type("application/json");
        let status = match request.send(&body[..]) {
            Ok(response) => response.status().as_u16(),
            Err(error) => {
                let why = format!("{}: {}", self.url, reason(&error));
                return Err(Undelivered::Later(why));
            }
        };
        let why = format!("{} answers {status}", self.url);
        match status {
            200..=299 => Ok(()),
            408 | 425 | 429 | 500..=599 => Err(Undelivered::Later(why)),
            _ => Err(Undelivered::Never(why)),
        }
    }
}

/// What went wrong, without the address, which may be a secret.
fn reason(error: &Error) -> String {
    match error {
        Error::BadUri(_) => "the address cannot be used".to_owned(),
        Error::HostNotFound => "its name has no address".to_owned(),
        other => crate::input::Text::new(&other.to_string()).to_string(),
    }
}

#[cfg(test)]
mod tests;
