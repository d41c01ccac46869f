//! Owns asking on the control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::start::{StartReply, StartRequest};
use crate::config::modes::{ModeChange, ModeSetting};
use crate::observe::{Denial, Event, Flow};
use crate::reconcile::{Cleared, Entry, StatusReport};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The same, where somebody wants everything out at once.
const CLEAR_PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no seawall daemon answers on {0}; start it with `systemctl start seawall` or `seawall run`"
    )]
    NotRunning(PathBuf),
    /// The socket is not for us.
    #[error("no permission to use {0}; run as root or as a member of the group seawall")]
    Permission(PathBuf),
    /// It listens, but does not answer in time.
    #[error("the daemon on {socket} did not answer within {} ms", patience.as_millis())]
    TimedOut {
        /// Where it listens.
        socket: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// It is about to end, and answers nothing any more.
    #[error("the daemon is stopping")]
    Stopping,
    /// It answered with an error.
    #[error("the daemon refused: {0}")]
    Refused(String),
    /// The connection broke.
    #[error("cannot talk to the daemon")]
    Http(#[from] hyper::Error),
    /// It answered something else than agreed.
    #[error("the daemon's answer is not understood; is it of the same version?")]
    Answer(#[from] serde_json::Error),
}

/// A client of one daemon.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the daemon that listens on `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_path_buf() }
    }

    /// The state of everything.
    pub async fn status(&self) -> Result<StatusReport, ClientError> {
        self.call(Method::GET, "/v1/status").await
    }

    /// The last transactions.
    pub async fn journal(&self) -> Result<Vec<Entry>, ClientError> {
        self.call(Method::GET, "/v1/journal").await
    }

    /// The connections that were seen, most recent last.
    pub async fn flows(&self) -> Result<Vec<Flow>, ClientError> {
        self.call(Method::GET, "/v1/flows").await
    }

    /// The denials that were seen, most recent last.
    pub async fn denials(&self) -> Result<Vec<Denial>, ClientError> {
        self.call(Method::GET, "/v1/denials").await
    }

    /// Events after this number, oldest first. With `wait` it answers when there is one, or with none after a while.
    pub async fn events(&self, after: u64, wait: bool) -> Result<Vec<Event>, ClientError> {
        self.call(Method::GET, &format!("/v1/events?after={after}&wait={wait}")).await
    }

    /// The modes that were set at run time.
    pub async fn modes(&self) -> Result<Vec<ModeSetting>, ClientError> {
        self.call(Method::GET, "/v1/modes").await
    }

    /// Sets a mode, or takes it back. Answers with all there are then.
    pub async fn set_mode(&self, change: &ModeChange) -> Result<Vec<ModeSetting>, ClientError> {
        let body = serde_json::to_vec(change)?;
        self.within(PATIENCE, self.exchange(Method::POST, "/v1/modes", body)).await
    }

    /// Waits until everything known is programmed.
    pub async fn settled(&self) -> Result<(), ClientError> {
        self.call::<serde_json::Value>(Method::GET, "/v1/settled").await.map(drop)
    }

    /// Has the configuration read again.
    pub async fn reload(&self) -> Result<(), ClientError> {
        self.call::<serde_json::Value>(Method::POST, "/v1/reload").await.map(drop)
    }

    /// Waits until a container may run, for as long as `patience`.
    pub async fn start(
        &self,
        start: &StartRequest,
        patience: Duration,
    ) -> Result<StartReply, ClientError> {
        let body = serde_json::to_vec(start)?;
        let exchange = self.exchange(Method::POST, "/v1/starts", body);
        self.within(patience, exchange).await
    }

    /// Has every table taken out; the daemon ends.
    pub async fn clear(&self) -> Result<Cleared, ClientError> {
        self.within(CLEAR_PATIENCE, self.exchange(Method::POST, "/v1/clear", Vec::new())).await
    }

    /// Whether a daemon listens.
    pub async fn is_running(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<T, ClientError> {
        self.within(PATIENCE, self.exchange(method, path, Vec::new())).await
    }

    async fn within<T>(
        &self,
        patience: Duration,
        exchange: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(patience, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::TimedOut { socket: self.socket.clone(), patience }),
        }
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    ClientError::Permission(self.socket.clone())
                }
                _ => ClientError::NotRunning(self.socket.clone()),
            })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The connection's own error shows as the request's.
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::builder().method(method).uri(path).header("host", "seawall");
        let request = request.header("content-type", "application/json");
        let request = match request.body(Full::new(Bytes::from(body))) {
            Ok(request) => request,
            Err(error) => return Err(ClientError::Refused(error.to_string())),
        };
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status == hyper::StatusCode::SERVICE_UNAVAILABLE {
            return Err(ClientError::Stopping);
        }
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        let refusal: serde_json::Value = serde_json::from_slice(&body)?;
        Err(ClientError::Refused(refusal["error"].as_str().unwrap_or("no reason given").to_owned()))
    }
}
