//! The Checkpoint call: who froze the container, and who thaws it.
//!
//! | before the call | after success | after failure |
//! |---|---|---|
//! | running | thawed | thawed |
//! | paused by the checkpointing client just before | stays frozen for that client's Resume, see [`Tasks::await_resume`] | thawed |
//! | paused by a person | stays paused | stays paused |
//!
//! Whatever happens to the helper, this process makes sure of the last column
//! and removes what the helper left of a partial world.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use containerd_shim::protos::api::CheckpointTaskRequest;
use containerd_shim::protos::events::task::TaskCheckpointed;

use super::RUNTIME;
use super::container::{Activity, Container, Pause};
use super::control::{FREEZE_TIMEOUT, blocking, thaw};
use super::copier::{COPYING, Copier};
use super::helper::{Helper, Reply, Request, Streams};
use super::options;
use super::tasks::Tasks;
use super::temporary::is_containerds_own;
use crate::error::{Error, ErrorKind, Result};
use crate::world::checkpoint::{self, Outcome};

impl Tasks {
    /// Writes the container as a world into the folder that the client names.
    pub async fn checkpoint(&self, request: CheckpointTaskRequest) -> Result<()> {
        let container = self.container(&request.id)?;
        container.must_run()?;
        let options = options::checkpoint_options(request.options.as_ref())?;
        let path = PathBuf::from(&request.path);
        let was_there = path.exists();
        if let Some(memory) = container.memory() {
            // CRIU would take what is still missing for zeros.
            memory.fetch_all().await?;
        }
        let paused = container.switch(|activity| match activity {
            Activity::None => Ok(None),
            Activity::Paused(pause) => Ok(Some(pause.clone())),
            _ => Err(container.wrong_state("is busy with a pause or checkpoint".to_owned())),
        })?;
        // Asked now: a dump may take long, and a containerd that restarts looks at everything.
        let for_checkpoint = paused.as_ref().is_some_and(Pause::belongs_to_checkpoint);
        let work = checkpoint::Request {
            target: container.target.clone(),
            pid: container.init.life().pid,
            world: path.clone(),
            rootfs: container.rootfs.clone(),
            namespace: self.namespace.clone(),
            containerd: PathBuf::from(&self.containerd),
            runtime: RUNTIME.to_owned(),
            wishes: options.as_ref().map(wishes).unwrap_or_default(),
            execs: container
                .execs()
                .iter()
                .filter_map(|exec| Some((exec.exec_id.clone(), exec.pid()?)))
                .collect(),
        };
        let copier = is_containerds_own(&path).then(|| Copier::find(Path::new(&self.containerd)));
        let result = self
            .run_checkpoint(&container, work, paused.clone(), for_checkpoint)
            .await;
        match copier {
            Some(Ok(copier)) => copier.look_after(path.clone()),
            Some(Err(error)) => log::warn!("{error}"),
            None => {}
        }
        match &result {
            Ok(outcome) => {
                if for_checkpoint && !outcome.ended {
                    self.await_resume(&container, &path);
                }
                self.events.publish(TaskCheckpointed {
                    container_id: request.id,
                    checkpoint: request.path,
                    ..Default::default()
                });
            }
            Err(error) => {
                log::warn!("checkpoint of {}: {error}", request.id);
                checkpoint::remove_partial(&path, was_there);
            }
        }
        result.map(|_| ())
    }

    /// From here to the end of the helper the activity says Checkpointing.
    async fn run_checkpoint(
        &self,
        container: &Arc<Container>,
        work: checkpoint::Request,
        paused: Option<Pause>,
        for_checkpoint: bool,
    ) -> Result<Outcome> {
        let work_dir = work.work_dir();
        let request = Request::Checkpoint(work);
        let helper = Helper::start(&self.reaper, &request, Streams::default()).await?;
        container.switch(|activity| {
            *activity = Activity::Checkpointing {
                helper: helper.pid,
                paused: paused.clone(),
            };
            Ok(())
        })?;
        let result = helper.finish().await.and_then(|reply| match reply {
            Reply::Checkpointed(outcome) => Ok(outcome),
            other => Err(Error::new(
                ErrorKind::Internal,
                format!("the helper answered {other:?} to a checkpoint"),
            )),
        });
        if result.is_err()
            && let Err(error) = blocking(move || checkpoint::await_criu(&work_dir)).await
        {
            log::warn!("after a failed checkpoint: {error}");
        }
        let stays_frozen = match (&paused, &result) {
            (None, _) => false,
            (Some(_), Ok(_)) => true,
            (Some(_), Err(_)) => !for_checkpoint,
        };
        if stays_frozen {
            if result.is_err() {
                self.freeze_again(container).await;
            }
            container.switch(|activity| {
                *activity = paused.map_or(Activity::None, Activity::Paused);
                Ok(())
            })?;
            return result;
        }
        let thawed = self.make_sure_it_runs(container, paused.is_some()).await;
        result.and_then(|outcome| thawed.map(|()| outcome))
    }

    /// A helper that was killed may have left a person's pause undone.
    async fn freeze_again(&self, container: &Arc<Container>) {
        let Ok(cgroup) = container.cgroup() else {
            return;
        };
        let frozen = blocking(move || {
            cgroup.freeze(FREEZE_TIMEOUT)?.leave_frozen();
            Ok(())
        });
        if let Err(error) = frozen.await {
            log::warn!("freeze again after a failed checkpoint: {error}");
        }
    }

    /// The helper thaws what it froze; this covers a helper that was killed.
    async fn make_sure_it_runs(&self, container: &Arc<Container>, was_paused: bool) -> Result<()> {
        if was_paused {
            container.expect_late_resume();
            return self.end_pause(container).await;
        }
        let cgroup = container.cgroup()?;
        let thawed = blocking(move || match cgroup.exists() {
            true => thaw(&cgroup),
            false => Ok(()),
        })
        .await;
        container.switch(|activity| {
            *activity = Activity::None;
            Ok(())
        })?;
        thawed
    }

    /// Thaws a container whose client paused it, had it checkpointed and then
    /// went away without a Resume.
    ///
    /// As long as containerd still copies the world out of its temporary
    /// folder (which it, or [`Copier`], then removes), the client gets its time; after that,
    /// or with a folder that stays, `resume_grace_seconds` of the host's
    /// configuration.
    fn await_resume(&self, container: &Arc<Container>, path: &Path) {
        const LOOK: Duration = Duration::from_millis(200);
        let grace = match crate::world::config::Config::load() {
            Ok(config) => config.checkpoint.resume_grace_seconds,
            Err(error) => {
                log::warn!("{error}");
                crate::world::config::CheckpointConfig::default().resume_grace_seconds
            }
        };
        let grace = Duration::from_secs(grace);
        let (tasks, container, path) = (self.clone(), container.clone(), path.to_owned());
        let temporary = is_containerds_own(&path);
        tokio::spawn(async move {
            let begun = Instant::now();
            let mut idle_since = begun;
            while idle_since.elapsed() < grace {
                tokio::time::sleep(LOOK).await;
                if !matches!(container.activity(), Activity::Paused(_)) {
                    return;
                }
                if temporary && path.exists() && begun.elapsed() < COPYING {
                    idle_since = Instant::now();
                }
            }
            log::warn!("no Resume came after the checkpoint: thawing");
            container.expect_late_resume();
            if let Err(error) = tasks.resume(&container.target.id).await {
                log::warn!("thaw after a checkpoint: {error}");
            }
        });
    }
}

fn wishes(options: &containerd_shim::protos::shim::oci::CheckpointOptions) -> checkpoint::Wishes {
    checkpoint::Wishes {
        exit: options.exit,
        external_unix_sockets: options.external_unix_sockets,
        // The wire cannot tell "no" from "not said".
        file_locks: options.file_locks.then_some(true),
        work_path: Some(&options.work_path)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from),
    }
}
