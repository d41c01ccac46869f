//! Owns a Docker host and a shop that the tests of one file share: starting them costs more than most tests.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::docker_host::DockerHost;
use super::shop::Shop;
use super::tables::nft;

/// Never dropped: `scripts/private-docker --owner` takes it away when the tests have ended, however they end.
static HOST: LazyLock<DockerHost> = LazyLock::new(DockerHost::start);
static SHOP: LazyLock<Shop<'static>> = LazyLock::new(|| Shop::up(&HOST, "shop", 8090));
static TURN: Mutex<()> = Mutex::new(());

/// The shared host, for one test at a time.
pub(crate) struct Stage {
    /// Its Docker.
    pub(crate) host: &'static DockerHost,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Waits for the test before, and takes away every table of seawall's that it left.
    #[track_caller]
    pub(crate) fn take() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let stage = Self { host: &HOST, _turn: turn };
        stage.bare();
        stage
    }

    /// Takes away every table of seawall's.
    #[track_caller]
    pub(crate) fn bare(&self) {
        for container in self.host.containers() {
            let netns = container.netns();
            if nft(&netns, "list tables").contains("inet seawall") {
                nft(&netns, "delete table inet seawall");
            }
        }
    }

    /// The shared host, for what tests share beside it.
    pub(crate) fn shared_host() -> &'static DockerHost {
        &HOST
    }

    /// The example shop, running since the first test that asked for it.
    pub(crate) fn shop(&self) -> &'static Shop<'static> {
        &SHOP
    }
}
