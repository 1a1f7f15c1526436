//! The page server of a world that is forked.

use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};
use crate::lazy::{Line, daemon};
use crate::store::Store;

/// The name of a world's page server, whether it runs or not.
pub(super) fn server_of(store: &Store, world: &Digest) -> Result<Digest> {
    let path = store.path().canonicalize();
    let path = path.context(|| format!("find {}", store.path().display()))?;
    Ok(daemon::name(&path, world))
}

/// Sees to it that the page server of a world runs. As long as the line that is returned is
/// open, it does not end for want of siblings. `fork`: the fork's id.
pub(super) fn serve(store: &Store, world: &Digest, fork: &str) -> Result<Line> {
    let program = std::env::current_exe().context(|| "find this program")?;
    let begin = || {
        let socket = daemon::ensure(&program, store.path(), world)?;
        Line::connect(&socket, &format!("fork/{fork}"))
    };
    begin().map_err(|error: Error| error.within("--eager does without a page server"))
}
