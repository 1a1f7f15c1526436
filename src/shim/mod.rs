//! The containerd shim: a small process per container or pod that serves the
//! ttrpc Task service, keeps the containers' state, copies their streams and
//! reaps their processes.
//!
//! It runs on one thread. What takes long (libcontainer, CRIU) happens in a
//! [`helper`] process; what blocks for moments (a freezer) on a thread of its own.

mod checkpoint;
mod console;
mod container;
mod control;
mod copier;
mod events;
mod expiry;
mod guardian;
pub mod helper;
mod idle;
mod info;
mod leftovers;
mod lifecycle;
mod logger;
mod oom;
mod options;
mod ports;
mod process;
mod reaper;
mod service;
mod stdio;
mod tasks;
mod temporary;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use containerd_shim::asynchronous::{ExitSignal, Shim, spawn};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::types::introspection::RuntimeInfo;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{Config, Flags, StartOpts, api::DeleteResponse};

use reaper::Reaper;
use tasks::Tasks;

/// The name under which containerd knows this shim.
pub const RUNTIME: &str = "io.containerd.world.v1";

/// Containers with the same value share a shim.
const GROUP_ANNOTATIONS: [&str; 2] = [
    "io.containerd.runc.v2.group",
    "io.kubernetes.cri.sandbox-id",
];

/// How long the shim's end waits for containerd to take the last events.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// This shim, for the crate's bootstrap.
pub struct WorldShim {
    flags: Flags,
    exit: Arc<ExitSignal>,
    reaper: Arc<Reaper>,
    events: OnceLock<events::Events>,
}

#[async_trait]
impl Shim for WorldShim {
    type T = Tasks;

    async fn new(_: &str, flags: &Flags, _: &mut Config) -> Self {
        WorldShim {
            flags: Flags {
                namespace: flags.namespace.clone(),
                id: flags.id.clone(),
                bundle: flags.bundle.clone(),
                address: flags.address.clone(),
                socket: flags.socket.clone(),
                ..Default::default()
            },
            exit: Arc::default(),
            reaper: Arc::default(),
            events: OnceLock::new(),
        }
    }

    async fn start_shim(&mut self, opts: StartOpts) -> containerd_shim::Result<String> {
        let group = group_of(Path::new(".")).unwrap_or_else(|| opts.id.clone());
        spawn(opts, &group, Vec::new()).await
    }

    async fn delete_shim(&mut self) -> containerd_shim::Result<DeleteResponse> {
        leftovers::remove(&self.flags)
            .map_err(|error| containerd_shim::Error::Other(error.to_string()))
    }

    async fn wait(&mut self) {
        self.exit.wait().await;
        if let Some(events) = self.events.get() {
            events.sent(LAST_EVENTS).await;
        }
        // The crate looks its address up in the bundle, which is gone by now.
        if let Some(path) = self.flags.socket.strip_prefix("unix://")
            && let Err(error) = std::fs::remove_file(path)
        {
            log::warn!("remove the socket {path}: {error}");
        }
    }

    async fn create_task_service(&self, publisher: RemotePublisher) -> Tasks {
        let events = events::Events::new(&publisher.address, self.flags.namespace.clone());
        let _ = self.events.set(events.clone());
        match reaper::child_signal() {
            Ok(signal) => {
                let reaper = self.reaper.clone();
                tokio::spawn(async move { reaper.run(signal).await });
            }
            Err(error) => log::error!("{error}"),
        }
        Tasks::new(
            self.flags.namespace.clone(),
            self.flags.address.clone(),
            events,
            self.reaper.clone(),
            self.exit.clone(),
        )
    }

    fn runtime_info(_: &str, _: Option<&Any>) -> containerd_shim::Result<RuntimeInfo> {
        info::runtime_info()
    }
}

/// The pod that a container belongs to, from its bundle's spec.
fn group_of(bundle: &Path) -> Option<String> {
    let spec = oci_spec::runtime::Spec::load(bundle.join("config.json")).ok()?;
    let annotations = spec.annotations().as_ref()?;
    GROUP_ANNOTATIONS
        .iter()
        .find_map(|name| annotations.get(*name).cloned())
}
