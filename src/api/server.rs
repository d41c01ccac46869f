//! Owns answering on the control socket. Only root and the socket's group may speak to it (security model 8).

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::limit::Limited;
use super::seen;
use super::start::{StartReply, StartRequest};
use crate::config::modes::{ModeChange, ModeSetting};
use crate::metadata::WorkloadId;
use crate::observe::Query;
use crate::reconcile::{Cleared, Entry, Request, StatusReport};

/// The group that may use the socket besides root, where the host has it.
const GROUP: &str = "seawall";
/// How many connections others than root may have at once.
const CONNECTIONS: usize = 64;

/// What the handlers need.
#[derive(Clone)]
pub(super) struct Daemon {
    pub(super) asked: Asked,
    allowed_group: Option<u32>,
}

/// Whom the daemon's parts are asked by.
#[derive(Clone)]
pub struct Asked {
    /// The reconcile loop.
    pub requests: mpsc::Sender<Request>,
    /// Who reads the configuration, and writes modes.
    pub settings: mpsc::Sender<SettingsRequest>,
    /// Who knows what was seen.
    pub queries: mpsc::Sender<Query>,
    /// The number of the last event.
    pub sequence: watch::Receiver<u64>,
}

/// What is asked of who reads the configuration.
pub enum SettingsRequest {
    /// Read it again. Answers when it is with the reconcile loop, or why it was refused.
    Reload(oneshot::Sender<Result<(), String>>),
    /// The modes set at run time.
    Modes(oneshot::Sender<Vec<ModeSetting>>),
    /// Set one, or take it back. Answers with all there are then, or why not.
    SetMode(ModeChange, oneshot::Sender<Result<Vec<ModeSetting>, String>>),
}

/// Who is at the other end of a connection (`SO_PEERCRED`, `unix(7)`).
#[derive(Clone, Copy, Debug)]
struct Peer {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Peer {
    /// Whether it belongs to a group: by the group it runs as, or because its user is listed in the group.
    fn is_member(self, group: u32) -> bool {
        let (Some(uid), Some(gid)) = (self.uid, self.gid) else { return false };
        let listed = || {
            let user = nix::unistd::User::from_uid(uid.into()).ok().flatten()?;
            let name = std::ffi::CString::new(user.name).ok()?;
            let groups = nix::unistd::getgrouplist(&name, user.gid).ok()?;
            Some(groups.iter().any(|member| member.as_raw() == group))
        };
        gid == group || listed().unwrap_or(false)
    }
}

impl From<&UnixStream> for Peer {
    fn from(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred().ok();
        Self { uid: credentials.map(|c| c.uid()), gid: credentials.map(|c| c.gid()) }
    }
}

impl Connected<IncomingStream<'_, Limited<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Limited<UnixListener>>) -> Self {
        Self::from(&stream.io().io)
    }
}

/// Binds the socket: 0660, owned by root and the group `seawall` where there is one.
/// A socket that a dead daemon left is replaced; one that a living daemon answers on is an error.
pub async fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        if UnixStream::connect(path).await.is_ok() {
            let message = "another seawall answers on this socket; stop it, or give --socket";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
        }
        std::fs::remove_file(path)?;
    }
    // Nobody can connect between bind and chmod but root: the mask takes all other rights away.
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    nix::sys::stat::umask(old);
    let listener = bound?;
    if let Some(group) = group() {
        nix::unistd::chown(path, None, Some(nix::unistd::Gid::from_raw(group)))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

fn group() -> Option<u32> {
    nix::unistd::Group::from_name(GROUP).ok().flatten().map(|group| group.gid.as_raw())
}

/// Answers requests until `stop` answers.
pub async fn serve(
    listener: UnixListener,
    asked: Asked,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let daemon = Daemon { asked, allowed_group: group() };
    let app = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/journal", get(journal))
        .route("/v1/settled", get(settled))
        .route("/v1/flows", get(seen::flows))
        .route("/v1/denials", get(seen::denials))
        .route("/v1/events", get(seen::events))
        .route("/v1/modes", get(modes).post(set_mode))
        .route("/v1/metrics", get(seen::metrics))
        .route("/v1/reload", post(reload_configuration))
        .route("/v1/starts", post(start))
        .route("/v1/clear", post(clear))
        .layer(middleware::from_fn_with_state(daemon.clone(), check_peer))
        .with_state(daemon);
    // Whoever is root could stop the daemon anyway.
    let is_root = |stream: &UnixStream| Peer::from(stream).uid == Some(0);
    let listener = Limited::new(listener, CONNECTIONS, is_root);
    axum::serve(listener, app.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(stop)
        .await
}

/// Answers `GET /metrics`, and nothing else, to whoever can reach the address.
pub async fn serve_metrics(listener: tokio::net::TcpListener, asked: Asked) -> io::Result<()> {
    let app = Router::new().route("/metrics", get(seen::metrics));
    let listener = Limited::new(listener, CONNECTIONS, |_| false);
    axum::serve(listener, app.with_state(Daemon { asked, allowed_group: None })).await
}

async fn check_peer(
    State(daemon): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    let own = nix::unistd::geteuid().as_raw();
    let is_allowed = peer.uid == Some(0)
        || peer.uid == Some(own)
        || daemon.allowed_group.is_some_and(|group| peer.is_member(group));
    if is_allowed {
        next.run(request).await
    } else {
        refusal(StatusCode::FORBIDDEN, "only root and the group seawall may ask")
    }
}

pub(super) fn refusal(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

/// Asks the loop and waits for its answer.
pub(super) async fn ask<T>(
    daemon: &Daemon,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Response> {
    let (reply, answer) = oneshot::channel();
    daemon.asked.requests.send(request(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

async fn status(State(daemon): State<Daemon>) -> Result<Json<StatusReport>, Response> {
    let mut report = ask(&daemon, Request::Status).await?;
    report.problems = seen::totals(&daemon).await?.problems;
    Ok(Json(report))
}

async fn journal(State(daemon): State<Daemon>) -> Result<Json<Vec<Entry>>, Response> {
    ask(&daemon, Request::Journal).await.map(Json)
}

async fn settled(State(daemon): State<Daemon>) -> Result<Json<serde_json::Value>, Response> {
    ask(&daemon, Request::Settled).await.map(|()| Json(serde_json::json!({ "settled": true })))
}

/// Answers when the container may run. Only root's runtime starts containers, so only root may say that one starts.
async fn start(
    State(daemon): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(asked): Json<StartRequest>,
) -> Result<Json<StartReply>, Response> {
    if peer.uid != Some(0) {
        return Err(refusal(StatusCode::FORBIDDEN, "only root may start containers"));
    }
    let id = WorkloadId::new(&asked.id);
    ask(&daemon, |reply| Request::Start { id, pid: asked.pid, reply })
        .await
        .map(|answer| Json(StartReply::from(answer)))
}

/// Taking all protection away is for root alone.
async fn clear(
    State(daemon): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<Cleared>, Response> {
    if peer.uid != Some(0) {
        return Err(refusal(StatusCode::FORBIDDEN, "only root may clear"));
    }
    ask(&daemon, Request::Clear).await.map(Json)
}

async fn reload_configuration(
    State(daemon): State<Daemon>,
) -> Result<Json<serde_json::Value>, Response> {
    let (reply, answer) = oneshot::channel();
    let asked = daemon.asked.settings.send(SettingsRequest::Reload(reply)).await;
    asked.map_err(|_| stopping())?;
    match answer.await {
        Ok(Ok(())) => Ok(Json(serde_json::json!({ "reload": "taken" }))),
        Ok(Err(why)) => Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, &why)),
        Err(_) => Err(stopping()),
    }
}

pub(super) fn stopping() -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "seawall is stopping")
}

async fn modes(State(daemon): State<Daemon>) -> Result<Json<Vec<ModeSetting>>, Response> {
    let (reply, answer) = oneshot::channel();
    let asked = daemon.asked.settings.send(SettingsRequest::Modes(reply)).await;
    asked.map_err(|_| stopping())?;
    answer.await.map(Json).map_err(|_| stopping())
}

/// A mode can take protection away, so setting one is for root alone.
async fn set_mode(
    State(daemon): State<Daemon>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(change): Json<ModeChange>,
) -> Result<Json<Vec<ModeSetting>>, Response> {
    if peer.uid != Some(0) {
        return Err(refusal(StatusCode::FORBIDDEN, "only root may set modes"));
    }
    let (reply, answer) = oneshot::channel();
    let asked = daemon.asked.settings.send(SettingsRequest::SetMode(change, reply)).await;
    asked.map_err(|_| stopping())?;
    match answer.await {
        Ok(Ok(modes)) => Ok(Json(modes)),
        Ok(Err(why)) => Err(refusal(StatusCode::UNPROCESSABLE_ENTITY, &why)),
        Err(_) => Err(stopping()),
    }
}
