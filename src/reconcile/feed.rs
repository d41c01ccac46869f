//! Owns what the loop hands on to whoever looks at the network: who is who, where to listen, and what was done.
//!
//! Nobody who listens holds the loop up: nothing here waits.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::desired::Desired;
use super::journal::Entry;
use crate::metadata::{Inventory, WorkloadId};
use crate::nft::listen::Listeners;
use crate::policy::Settings;

/// Who is who is told at most this often.
const PAUSE: Duration = Duration::from_millis(50);

/// Who is who, and what each may do, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Every workload.
    pub inventory: Inventory,
    /// What is decided for each.
    pub desired: Arc<Desired>,
    /// The settings that was decided with.
    pub settings: Settings,
}

/// A netns to listen to.
#[derive(Debug)]
pub struct Listening {
    /// The workload whose netns it is.
    pub owner: WorkloadId,
    /// Its first process.
    pub pid: u32,
    /// The netns.
    pub inode: u64,
    /// Its own addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Where it is heard.
    pub listeners: Listeners,
    /// Answers, with an error, when there is nothing to listen to any more.
    pub until: oneshot::Receiver<()>,
}

/// What is handed on.
#[derive(Debug)]
pub enum News {
    /// A netns to listen to.
    Netns(Box<Listening>),
    /// A transaction, or what somebody did.
    Entry(Box<Entry>),
}

/// Where it is handed on to.
#[derive(Debug)]
pub struct Outlet {
    news: mpsc::UnboundedSender<News>,
    view: watch::Sender<Arc<View>>,
    told: Option<Instant>,
    is_stale: bool,
}

/// The other end.
#[derive(Debug)]
pub struct Inlet {
    /// What happened.
    pub news: mpsc::UnboundedReceiver<News>,
    /// Who is who now.
    pub view: watch::Receiver<Arc<View>>,
}

/// Both ends.
pub fn feed() -> (Outlet, Inlet) {
    let (news, received) = mpsc::unbounded_channel();
    let (view, watched) = watch::channel(Arc::default());
    (Outlet { news, view, told: None, is_stale: false }, Inlet { news: received, view: watched })
}

impl Outlet {
    /// Hands something on.
    pub(super) fn tell(&self, news: News) {
        // Nobody listens any more only when the daemon stops.
        let _ = self.news.send(news);
    }

    /// Says that who is who has changed.
    pub(super) fn outdate(&mut self) {
        self.is_stale = true;
    }

    /// When who is who is to be told, if it is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.is_stale.then(|| self.told.map_or_else(Instant::now, |told| told + PAUSE))
    }

    /// Tells who is who, where that is due.
    pub(super) fn publish(&mut self, view: impl FnOnce() -> View) {
        if self.due().is_some_and(|due| due <= Instant::now()) {
            self.view.send_replace(Arc::new(view()));
            (self.told, self.is_stale) = (Some(Instant::now()), false);
        }
    }
}
