//! Where things are: the store, and containerd. The same arguments in every verb.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::containerd::Containerd;
use crate::error::Result;
use crate::registry::Access;
use crate::store::{DEFAULT_PATH, Store};

/// How long containerd may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the store is.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// The store: an OCI image layout
    #[arg(long, env = "WORLD_STORE", default_value = DEFAULT_PATH, value_name = "DIR")]
    store: PathBuf,
}

impl StoreArgs {
    pub fn path(&self) -> &Path {
        &self.store
    }

    /// The store, which is made when there is none.
    pub fn open(&self) -> Result<Store> {
        Store::open(&self.store)
    }

    /// The store, which must be there.
    pub fn open_existing(&self) -> Result<Store> {
        Store::open_existing(&self.store)
    }
}

/// Where containerd is, as `ctr` has it.
#[derive(Debug, clap::Args)]
pub(super) struct ContainerdArgs {
    /// containerd's socket
    #[arg(
        short,
        long,
        env = "CONTAINERD_ADDRESS",
        value_name = "SOCKET",
        default_value = "/run/containerd/containerd.sock"
    )]
    address: PathBuf,

    /// containerd's namespace
    #[arg(short, long, env = "CONTAINERD_NAMESPACE", default_value = "default")]
    pub namespace: String,
}

impl ContainerdArgs {
    pub fn connect(&self) -> Result<Containerd> {
        Containerd::connect(&self.address, PATIENCE)
    }
}

/// How registries are reached.
#[derive(Debug, clap::Args)]
pub(super) struct RegistryArgs {
    /// Speak HTTP, unencrypted, with the registry
    #[arg(long)]
    plain_http: bool,
}

impl RegistryArgs {
    pub fn access(&self) -> Access {
        Access {
            plain_http: self.plain_http,
        }
    }
}
