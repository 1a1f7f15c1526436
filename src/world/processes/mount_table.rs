//! `/proc/PID/mountinfo` (see proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, IoContext, Result};

/// One mount of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Mount id.
    pub id: u64,
    /// Device number of its filesystem, `MAJOR:MINOR`.
    pub device: String,
    /// Path in its filesystem that is mounted.
    pub root: PathBuf,
    /// Where it is mounted, as the process sees it.
    pub point: PathBuf,
    /// Options of this mount, such as `ro`.
    pub options: Vec<String>,
    /// Filesystem type, without a subtype.
    pub fstype: String,
    /// Options of the filesystem, such as the controllers of a cgroup.
    pub super_options: String,
}

/// The mounts of process `pid`, in the order of their making.
pub(super) fn of_process(pid: i32) -> Result<Vec<Mount>> {
    let path = format!("/proc/{pid}/mountinfo");
    let bytes = std::fs::read(&path).context(|| format!("read {path}"))?;
    parse(&bytes).ok_or_else(|| Error::new(ErrorKind::Internal, format!("cannot parse {path}")))
}

fn parse(bytes: &[u8]) -> Option<Vec<Mount>> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(parse_line)
        .collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let device = text(fields.nth(1)?);
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let options = text(fields.next()?).split(',').map(str::to_owned).collect();
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let fstype = text(fields.next()?);
    Some(Mount {
        id,
        device,
        root,
        point,
        options,
        fstype: fstype.split('.').next().unwrap_or_default().to_owned(),
        super_options: text(fields.nth(1)?),
    })
}

/// Undoes `\040` for a space and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = rest
            .get(1..4)
            .filter(|_| first == b'\\')
            .and_then(|digits| {
                let digits = std::str::from_utf8(digits).ok()?;
                u8::from_str_radix(digits, 8).ok()
            });
        bytes.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &rest[4..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The longest mount point that `path` lies at or below, with the rest of the path.
pub(super) fn containing<'a, 'p>(
    points: impl Iterator<Item = &'a Path>,
    path: &'p Path,
) -> Option<(&'a Path, &'p Path)> {
    points
        .filter_map(|point| Some((point, path.strip_prefix(point).ok()?)))
        .max_by_key(|(point, _)| point.as_os_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields() {
        let line = b"36 35 0:98 /a\\040b /mnt\\134x rw,noatime shared:3 master:1 - fuse.x /dev/root rw,cpu,cpuacct";
        let mounts = parse(line).unwrap();
        assert_eq!(
            mounts,
            [Mount {
                id: 36,
                device: "0:98".into(),
                root: "/a b".into(),
                point: "/mnt\\x".into(),
                options: vec!["rw".into(), "noatime".into()],
                fstype: "fuse".into(),
                super_options: "rw,cpu,cpuacct".into(),
            }]
        );
    }

    #[test]
    fn the_longest_point_contains() {
        let points = ["/a", "/a/b", "/ab"].map(Path::new);
        let found = containing(points.into_iter(), Path::new("/a/b/c"));
        assert_eq!(found, Some((Path::new("/a/b"), Path::new("c"))));
        assert_eq!(containing(points.into_iter(), Path::new("/x")), None);
    }

    #[test]
    fn our_own_table_parses() {
        let pid = std::process::id().try_into().unwrap();
        assert!(!of_process(pid).unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
