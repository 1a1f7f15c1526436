//! The end of a container that was made for a time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::container::Container;
use super::process::Phase;
use super::tasks::Tasks;

impl Tasks {
    /// Kills all of a container's processes at a time, in seconds since 1970.
    pub(super) fn end_at(&self, container: &Arc<Container>, expires: i64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        let left = u64::try_from(expires).unwrap_or(0).saturating_sub(now);
        let (tasks, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(left)).await;
            let id = &container.target.id;
            let is_same = |now: Arc<Container>| Arc::ptr_eq(&now, &container);
            let lives = tasks.container(id).is_ok_and(is_same)
                && container.init.life().phase != Phase::Stopped;
            if !lives {
                return;
            }
            log::info!("the time of {id} is over");
            if let Err(error) = tasks.kill(id, "", Signal::KILL.as_raw() as u32, true).await {
                log::warn!("end {id}, whose time is over: {error}");
            }
        });
    }
}
