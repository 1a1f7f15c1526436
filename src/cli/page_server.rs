//! `world page-server`: serves the memory of a world to the siblings forked of it.
//!
//! Started by whoever forks; people have no need to. It says `ready` on stdout
//! when its socket is there.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use super::places::StoreArgs;
use crate::digest::Digest;
use crate::error::{IoContext, Result};
use crate::lazy::daemon;
use crate::lazy::server::{Server, World};
use crate::world::artifact;

/// `world page-server`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The digest of the world
    #[arg(value_name = "DIGEST")]
    world: Digest,

    /// The socket to listen on
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,

    /// Seconds without siblings after which it ends
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    linger: u64,

    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    daemon::settle();
    let store = args.store.open_existing()?;
    let lease = store.lease()?;
    lease.hold_world(&args.world)?;
    let memory = artifact::lazy_memory(&lease, &args.world)?;
    let world = World {
        index: &memory.index,
        store: lease.store(),
        lazy: &memory.lazy,
        working_set: store.working_set(&args.world).ok(),
    };
    let mut server = Server::new(&world, &args.socket)?;
    let _socket = daemon::OwnSocket::at(&args.socket)?;
    let mut out = std::io::stdout();
    writeln!(out, "ready")
        .and_then(|()| out.flush())
        .context(|| "say that it is ready")?;
    server.run(Duration::from_secs(args.linger))
}
