//! These need root (to enter a UTS namespace) and fail without.
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};

use oci_spec::runtime::Spec;
use worldshim::ErrorKind;
use worldshim::world::env::{EnvPart, EnvVar, Limit};
use worldshim::world::secrets::{FingerprintKey, Redactor, Rules, SecretsConfig};

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a shell script in a UTS namespace of its own; the script says `ready` and waits.
fn start(script: &str, env: &[(&OsStr, &OsStr)]) -> Running {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new("unshare")
        .args(["--uts", "/bin/sh", "-c", script])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    Running(child)
}

fn value<'a>(vars: &'a [EnvVar], name: &str) -> &'a [u8] {
    let var = vars
        .iter()
        .find(|var| var.name.0 == name.as_bytes())
        .unwrap();
    &var.value.as_ref().unwrap().0
}

#[test]
fn a_process_is_described_as_it_is() {
    let raw = OsStr::from_bytes(b"caf\xe9=\xff\x01");
    let child = start(
        "echo elsewhere > /proc/sys/kernel/hostname; umask 027; ulimit -n 512; cd /usr; \
         export LATE=1; echo ready; read x",
        &[
            (OsStr::new("RAW"), raw),
            (OsStr::new("API_KEY"), OsStr::new("hunter2")),
        ],
    );
    let mut spec = Spec::default();
    let process = spec.process_mut().as_mut().unwrap();
    *process.env_mut() = Some(vec!["API_KEY=hunter2".into(), "ODD".into()]);
    let mut part = EnvPart::gather(child.0.id() as i32, &spec).unwrap();

    assert_eq!(part.hostname, "elsewhere");
    assert_ne!(
        rustix::system::uname().nodename().to_str().unwrap(),
        "elsewhere"
    );
    assert_eq!(part.umask, "0027");
    assert_eq!(part.cwd.0, b"/usr");
    assert_eq!(
        part.limits["RLIMIT_NOFILE"],
        Limit {
            hard: Some(512),
            soft: Some(512)
        }
    );
    assert_eq!(part.limits.len(), 16);
    assert_eq!((part.uid.effective, part.gid.filesystem), (0, 0));
    assert_eq!(part.capabilities.effective.len(), 16);
    assert!(!part.no_new_privs);
    assert!(part.namespaces["uts"] > 0 && part.namespaces.len() >= 7);
    assert_eq!(value(&part.live, "RAW"), raw.as_bytes());
    assert!(
        part.live.iter().all(|var| var.name.0 != b"LATE"),
        "only its memory knows that"
    );
    assert_eq!(part.spec[1].value, None);

    let rules = Rules::new(&SecretsConfig::default()).unwrap();
    let mut redactor = Redactor::with_key(rules, FingerprintKey::from_bytes([1; 32]));
    part.redact(&mut redactor);
    assert_eq!(redactor.found().len(), 2);
    assert_eq!(value(&part.live, "API_KEY"), value(&part.spec, "API_KEY"));
    let bytes = part.to_bytes().unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    assert_eq!(EnvPart::parse(&bytes).unwrap(), part);
}

#[test]
fn a_process_that_is_not_there_is_not_found() {
    let error = EnvPart::gather(i32::MAX, &Spec::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_damaged_part_is_corrupt() {
    for bytes in [&b""[..], b"{}", b"[", b"{\"uid\":1}"] {
        let error = EnvPart::parse(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CorruptWorld);
        assert!(error.to_string().starts_with("env.json: "), "{error}");
    }
}
