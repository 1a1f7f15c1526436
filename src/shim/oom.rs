//! Tells containerd when the kernel kills for want of memory.

use std::sync::Arc;

use containerd_shim::protos::events::task::TaskOOM;

use super::container::Container;
use super::tasks::Tasks;
use crate::cgroup::OomEvent;

/// Watches the container until its control group is gone. A container that
/// cannot be watched runs all the same.
pub fn watch(tasks: &Tasks, container: &Arc<Container>) {
    let watch = container.cgroup().and_then(|cgroup| cgroup.oom_watch());
    let mut watch = match watch {
        Ok(watch) => watch,
        Err(error) => {
            log::warn!("no out-of-memory events: {error}");
            return;
        }
    };
    let (tasks, id) = (tasks.clone(), container.target.id.clone());
    tokio::spawn(async move {
        while let Ok(OomEvent::Killed) = watch.next().await {
            tasks.events.publish(TaskOOM {
                container_id: id.clone(),
                ..Default::default()
            });
        }
    });
}
