//! The last step of a new process: finding its program, and becoming it.
//!
//! libcontainer's own executor wants a `PATH`, looks at the permission bits of
//! "others" alone, passes the environment on in no order, has text without a
//! `#!` run by a shell, and tells what is wrong in words that nobody knows. The
//! words here are those that users, and programs that set 126 and 127 by them
//! (`docker`, `nerdctl`), know from runc.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::unistd::execve;
use oci_spec::runtime::{Process, Spec};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

/// Runs a spec's `process.args` with its `process.env`.
#[derive(Debug, Clone)]
pub struct Program {
    /// It is a container's init.
    pub is_init: bool,
}

impl Executor for Program {
    /// Runs as the process's own user, in the container.
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        let invalid = ExecutorValidationError::ArgValidationError;
        let process = process(spec).map_err(invalid)?;
        find(process).map(drop).map_err(invalid)
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = process(spec).map_err(ExecutorError::Other)?;
        let path = find(process).map_err(ExecutorError::Other)?;
        let message = become_program(&path, process);
        if self.is_init {
            // Its start has succeeded already: nobody else can be told.
            eprintln!("{message}");
            std::process::exit(1);
        }
        Err(ExecutorError::Other(message))
    }
}

/// Returns only when it failed, with the reason.
fn become_program(path: &Path, process: &Process) -> String {
    let failed = |why: &dyn std::fmt::Display| format!("exec {}: {why}", path.display());
    let c_strings = |strings: Vec<String>| -> Result<Vec<CString>, _> {
        strings.into_iter().map(CString::new).collect()
    };
    let args = process.args().clone().unwrap_or_default();
    let Ok(program) = CString::new(path.as_os_str().as_encoded_bytes()) else {
        return failed(&"the path has a zero byte");
    };
    match (c_strings(args), c_strings(environment(process))) {
        (Ok(args), Ok(env)) => {
            crate::sys::restore_sigpipe();
            match execve(&program, &args, &env) {
                Ok(never) => match never {},
                Err(error) => failed(&error.desc().to_lowercase()),
            }
        }
        _ => failed(&"an argument or a variable has a zero byte"),
    }
}

/// The variables in their order, each once: the last value counts, at the
/// place of the first. `HOME` is the user's own unless given.
fn environment(process: &Process) -> Vec<String> {
    let mut variables: Vec<String> = Vec::new();
    let mut set = |variable: &str| {
        let name = name_of(variable);
        match variables.iter_mut().find(|other| name_of(other) == name) {
            Some(other) => *other = variable.to_owned(),
            None => variables.push(variable.to_owned()),
        }
    };
    // libcontainer has looked HOME up and put it into our own environment.
    let home = std::env::var("HOME").ok().filter(|home| !home.is_empty());
    let given = process.env().as_deref().unwrap_or_default();
    given.iter().for_each(|variable| set(variable));
    if let Some(home) = home
        && !given
            .iter()
            .any(|variable| name_of(variable) == "HOME" && variable != "HOME=")
    {
        set(&format!("HOME={home}"));
    }
    variables
}

fn name_of(variable: &str) -> &str {
    variable.split('=').next().unwrap_or_default()
}

fn process(spec: &Spec) -> Result<&Process, String> {
    spec.process()
        .as_ref()
        .ok_or_else(|| "the spec has no process".to_owned())
}

/// A name with a slash is a path, any other is looked for in the process's own `PATH`.
fn find(process: &Process) -> Result<PathBuf, String> {
    let args = process.args().as_deref().unwrap_or_default();
    let name = args.first().map_or("", String::as_str);
    let error = |why: &str| format!("exec: {name:?}: {why}");
    if name.contains('/') {
        let path = PathBuf::from(name);
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(Errno::NOENT) => Err(error(&format!("stat {name}: no such file or directory"))),
            Err(Errno::ISDIR) => Err(error("is a directory")),
            Err(Errno::ACCESS) => Err(error("permission denied")),
            Err(other) => Err(error(&std::io::Error::from(other).to_string())),
        };
    }
    let variables = process.env().as_deref().unwrap_or_default();
    let search = variables
        .iter()
        .rev()
        .find_map(|variable| variable.strip_prefix("PATH="));
    search
        .unwrap_or_default()
        .split(':')
        .map(|folder| Path::new(if folder.is_empty() { "." } else { folder }).join(name))
        .find(|path| !name.is_empty() && executable(path).is_ok())
        .ok_or_else(|| error("executable file not found in $PATH"))
}

fn executable(path: &Path) -> Result<(), Errno> {
    if rustix::fs::stat(path)?.st_mode & 0o170_000 == 0o040_000 {
        return Err(Errno::ISDIR);
    }
    accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::ProcessBuilder;

    fn process(args: &[&str], env: &[&str]) -> Process {
        let owned = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        ProcessBuilder::default()
            .args(owned(args))
            .env(owned(env))
            .build()
            .unwrap()
    }

    #[test]
    fn names_are_searched_and_paths_are_not() {
        let found = |args: &[&str], env: &[&str]| find(&process(args, env));
        let path = ["PATH=/nowhere:/bin"];
        assert_eq!(found(&["sh"], &path).unwrap(), Path::new("/bin/sh"));
        assert_eq!(found(&["/bin/sh"], &[]).unwrap(), Path::new("/bin/sh"));
        for (name, why) in [
            ("nope", "executable file not found in $PATH"),
            ("", "executable file not found in $PATH"),
            ("/nope", "stat /nope: no such file or directory"),
            ("/etc", "is a directory"),
        ] {
            assert_eq!(
                found(&[name], &path).unwrap_err(),
                format!("exec: {name:?}: {why}")
            );
        }
        assert!(found(&["sh"], &[]).is_err());
    }

    #[test]
    fn variables_keep_their_order_and_the_last_value() {
        let env = environment(&process(&["x"], &["B=1", "A=2", "B=3", "HOME=/h", "E="]));
        assert_eq!(env, ["B=3", "A=2", "HOME=/h", "E="]);
    }
}
