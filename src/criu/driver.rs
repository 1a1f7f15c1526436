//! A request to CRIU from its start to its result.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::log;
use super::rpc::{self, RequestType};
use super::worker::{Incoming, Launch, Received, Worker, describe};
use crate::error::{Error, ErrorKind, Result};

/// How long CRIU may go on after it should have given up.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A `criu` program.
#[derive(Debug, Clone)]
pub struct Criu {
    path: PathBuf,
}

/// A stage that CRIU has reached and stands at until it is answered.
#[derive(Debug)]
pub struct Notification {
    /// The stage: `pre-dump`, `post-dump`, `setup-namespaces`, `post-restore`, …
    pub stage: String,
    /// The tree's root, told at `setup-namespaces` and `post-restore`.
    pub pid: Option<i32>,
    /// The terminal's master, told at `orphan-pts-master`.
    pub fd: Option<OwnedFd>,
}

/// What a request was answered.
pub type Answer = rpc::Response;

/// A request and what bounds it.
pub struct Call<'a> {
    /// The request.
    pub request: rpc::Request,
    /// The log that the request's options name, for the error's text.
    pub log: Option<PathBuf>,
    /// When it must be done.
    pub deadline: Option<Instant>,
    /// Readable when it is called off.
    pub cancel: Option<BorrowedFd<'a>>,
    /// Told each stage; an error makes CRIU give up and undo.
    pub on_notify: &'a mut dyn FnMut(Notification) -> Result<()>,
}

impl Criu {
    /// The program at `configured`, else the one on PATH.
    pub fn find(configured: Option<&Path>) -> Result<Criu> {
        let name = configured.map_or(OsStr::new("criu"), Path::as_os_str);
        let path = which::which(name).map_err(|error| {
            let name = name.to_string_lossy();
            let text = format!("no CRIU program {name}: install criu 4.1 or later");
            Error::caused_by(ErrorKind::HostUnfit, text, error)
        })?;
        Ok(Criu { path })
    }

    /// Where the program is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts a worker. Its process can be looked at before [`Worker::call`].
    pub fn start(&self, launch: Launch) -> Result<Worker> {
        if launch.network.is_some() {
            self.know_kernel()?;
        }
        Worker::start(&self.path, launch)
    }

    /// One request that needs no options and sends no notifications.
    pub(super) fn ask(&self, request: rpc::Request) -> Result<Answer> {
        let mut worker = self.start(Launch {
            dies_with_us: true,
            ..Launch::default()
        })?;
        worker.call(Call {
            request,
            log: None,
            deadline: Some(Instant::now() + Duration::from_secs(20)),
            cancel: None,
            on_notify: &mut |_| Ok(()),
        })
    }
}

impl Worker {
    /// Sends the request, answers notifications, and waits for the result.
    ///
    /// When time is up or the call is called off, CRIU is told so at the next
    /// stage it reaches: it then undoes what it did. A killed CRIU could not,
    /// and a process under its hands at that moment may die with it. Only
    /// [`PATIENCE`] later it is killed.
    ///
    /// # Errors
    /// `Criu` with CRIU's reason when it failed or died, `Obstacle` when the
    /// reason is something in the container, `Timeout`, `Aborted`, or the
    /// error of `on_notify`.
    pub fn call(&mut self, mut call: Call<'_>) -> Result<Answer> {
        let name = request_name(&call.request);
        self.send(&call.request)
            .or_else(|error| self.died(name, &call).and(Err(error)))?;
        let mut refused = None;
        loop {
            // A socket that fails is that of a CRIU that has died.
            let received = self.receive(call.deadline, call.cancel);
            match received.unwrap_or(Received::Gone) {
                Received::TimedOut | Received::Cancelled if refused.is_some() => {
                    self.kill();
                    return Err(refused.unwrap_or_else(|| timed_out(name)));
                }
                Received::TimedOut => {
                    refused = Some(timed_out(name));
                    call.deadline = Some(Instant::now() + PATIENCE);
                }
                Received::Cancelled => {
                    let text = format!("CRIU's {name} was called off");
                    refused = Some(Error::new(ErrorKind::Aborted, text));
                    call.cancel = None;
                    call.deadline = Some(Instant::now() + PATIENCE);
                }
                Received::Gone => match refused {
                    Some(error) => return Err(error),
                    None => self.died(name, &call)?,
                },
                Received::Message(message) if is_notification(&message) => {
                    if refused.is_none() {
                        refused = (call.on_notify)(notification(message)).err();
                    }
                    if self.send(&answer(refused.is_none())).is_err() && refused.is_none() {
                        self.died(name, &call)?;
                    }
                }
                Received::Message(message) => {
                    return self.conclude(message.response, refused, &call);
                }
            }
        }
    }

    fn conclude(
        &mut self,
        response: Answer,
        refused: Option<Error>,
        call: &Call<'_>,
    ) -> Result<Answer> {
        let name = request_name(&call.request);
        let status = self.finish()?;
        if let Some(error) = refused {
            return Err(error);
        }
        if !response.success {
            return Err(self.failure(format!("CRIU's {name} failed"), call));
        }
        // A check that says no and a version request end with status 0 or 1 alike.
        if call.request.opts.is_some() && !status.success() {
            let text = format!("CRIU's {name} ended with {}", describe(status));
            return Err(self.failure(text, call));
        }
        Ok(response)
    }

    /// CRIU has gone without a result: never `Ok`.
    fn died(&mut self, name: &str, call: &Call<'_>) -> Result<()> {
        let status = self.finish()?;
        let text = format!("CRIU died during {name}, {}", describe(status));
        Err(self.failure(text, call))
    }

    fn failure(&mut self, what: String, call: &Call<'_>) -> Error {
        let words = self.last_words();
        let tail = call.log.as_deref().map(log::read_tail);
        match tail {
            Some(tail) if !tail.is_empty() => log::failure(&what, &tail),
            _ if words.is_empty() => Error::new(ErrorKind::Criu, what),
            _ => log::failure(&what, &words),
        }
    }
}

fn timed_out(name: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("CRIU's {name} took too long"))
}

fn is_notification(message: &Incoming) -> bool {
    message.response.kind() == RequestType::Notify && message.response.notify.is_some()
}

fn notification(message: Incoming) -> Notification {
    let notify = message.response.notify.unwrap_or_default();
    Notification {
        stage: notify.script.unwrap_or_default(),
        pid: notify.pid,
        fd: message.fd,
    }
}

fn answer(success: bool) -> rpc::Request {
    rpc::Request {
        kind: RequestType::Notify.into(),
        notify_success: Some(success),
        ..rpc::Request::default()
    }
}

fn request_name(request: &rpc::Request) -> &'static str {
    match request.kind() {
        RequestType::Dump => "dump",
        RequestType::Restore => "restore",
        RequestType::PreDump | RequestType::SinglePreDump => "pre-dump",
        RequestType::Check => "check",
        RequestType::FeatureCheck => "feature check",
        RequestType::Version => "version request",
        RequestType::Empty | RequestType::Notify => "request",
    }
}
