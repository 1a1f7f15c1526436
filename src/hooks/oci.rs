//! The OCI lifecycle hooks of a restored container.
//!
//! As runc does at a restore: `prestart` and `createRuntime` when the
//! namespaces and processes are there and nothing runs yet (that is when a
//! network is set up), `poststart` when they run. `createContainer` and
//! `startContainer` run inside of a container that is being made: there is
//! none here. `poststop` is libcontainer's, at the delete.

use libcontainer::container::Container;
use libcontainer::hooks::run_hooks;
use oci_spec::runtime::{Hook, Spec};

use crate::error::{Error, ErrorKind, Result};
use crate::runtime::Target;

/// Runs `prestart` and `createRuntime`.
pub fn before_it_runs(target: &Target, spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    run(target, "prestart", hooks.prestart().as_ref())?;
    run(target, "createRuntime", hooks.create_runtime().as_ref())
}

/// Runs `poststart`.
pub fn when_it_runs(target: &Target, spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    run(target, "poststart", hooks.poststart().as_ref())
}

fn run(target: &Target, name: &str, hooks: Option<&Vec<Hook>>) -> Result<()> {
    if hooks.is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let failed = |error: &dyn std::error::Error| {
        let text = format!("run the {name} hooks of {}: {error}", target.id);
        Error::new(ErrorKind::Runtime, text)
    };
    let container = Container::load(target.state_dir()).map_err(|error| failed(&error))?;
    run_hooks(hooks, Some(&container.state), None, container.pid(), None)
        .map_err(|error| failed(&error))
}
