//! The tasks of this shim: finding them, and what the Task calls do to them.
//!
//! The methods are spread over files by what they are about: `lifecycle`
//! (create, start, exec, delete), `control` (signals, pause, limits,
//! questions), `checkpoint`. No lock is held while any of them waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use containerd_shim::ExitSignal;

use super::container::Container;
use super::events::Events;
use super::reaper::Reaper;
use crate::error::{Error, ErrorKind, Result};

/// Everything that a Task call needs. Cheap to clone.
#[derive(Clone)]
pub struct Tasks {
    /// The containerd namespace, `default` or `k8s.io` for example.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub containerd: String,
    /// Where events go.
    pub events: Events,
    /// Where children's ends come from.
    pub reaper: Arc<Reaper>,
    /// Ends the shim.
    pub exit: Arc<ExitSignal>,
    containers: Arc<Mutex<HashMap<String, Arc<Container>>>>,
}

impl Tasks {
    /// A shim without containers.
    pub fn new(
        namespace: String,
        containerd: String,
        events: Events,
        reaper: Arc<Reaper>,
        exit: Arc<ExitSignal>,
    ) -> Self {
        Tasks {
            namespace,
            containerd,
            events,
            reaper,
            exit,
            containers: Arc::default(),
        }
    }

    /// The container with this id.
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.lock()
            .get(id)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("container {id} not found")))
    }

    /// Registers a container.
    pub fn add(&self, container: Container) -> Result<Arc<Container>> {
        let mut containers = self.lock();
        let id = container.target.id.clone();
        if containers.contains_key(&id) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                format!("container {id} already exists"),
            ));
        }
        let container = Arc::new(container);
        containers.insert(id, container.clone());
        Ok(container)
    }

    /// Forgets a container.
    pub fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// There is no container any more.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Container>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
