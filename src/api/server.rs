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
use tokio::sync::{mpsc, oneshot};

use super::start::{StartReply, StartRequest};
use crate::metadata::WorkloadId;
use crate::reconcile::{Cleared, Entry, Request, StatusReport};

/// The group that may use the socket besides root, where the host has it.
const GROUP: &str = "seawall";

/// What the handlers need.
#[derive(Clone)]
struct Daemon {
    requests: mpsc::Sender<Request>,
    reload: mpsc::Sender<()>,
    allowed_group: Option<u32>,
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

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let io: &UnixStream = stream.io();
        let credentials = io.peer_cred().ok();
        Self { uid: credentials.map(|c| c.uid()), gid: credentials.map(|c| c.gid()) }
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

/// Answers requests until `stop` answers. `reload` is told when somebody asks for the configuration to be read again.
pub async fn serve(
    listener: UnixListener,
    requests: mpsc::Sender<Request>,
    reload: mpsc::Sender<()>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let daemon = Daemon { requests, reload, allowed_group: group() };
    let app = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/journal", get(journal))
        .route("/v1/settled", get(settled))
        .route("/v1/reload", post(reload_configuration))
        .route("/v1/starts", post(start))
        .route("/v1/clear", post(clear))
        .layer(middleware::from_fn_with_state(daemon.clone(), check_peer))
        .with_state(daemon);
    axum::serve(listener, app.into_make_service_with_connect_info::<Peer>())
        .with_graceful_shutdown(stop)
        .await
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

fn refusal(status: StatusCode, error: &str) -> Response {
    (status, Json(serde_json::json!({ "error": error }))).into_response()
}

/// Asks the loop and waits for its answer.
async fn ask<T>(
    daemon: &Daemon,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Response> {
    let stopping = || refusal(StatusCode::SERVICE_UNAVAILABLE, "seawall is stopping");
    let (reply, answer) = oneshot::channel();
    daemon.requests.send(request(reply)).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())
}

async fn status(State(daemon): State<Daemon>) -> Result<Json<StatusReport>, Response> {
    ask(&daemon, Request::Status).await.map(Json)
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

async fn reload_configuration(State(daemon): State<Daemon>) -> Response {
    match daemon.reload.send(()).await {
        Ok(()) => Json(serde_json::json!({ "reload": "asked" })).into_response(),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "seawall is stopping"),
    }
}
