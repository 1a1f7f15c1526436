//! What containerd's snapshotter handed over as a container's rootfs.

use super::overlay::Layering;
use super::upper::Upper;
use crate::runtime::RootfsMountRequest;
use crate::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// What a rootfs consists of, as far as it can be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootfsMount {
    /// A writable layer over others.
    Overlay {
        /// Directories, the topmost first.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// The overlay's work directory.
        work: PathBuf,
        /// The mount option `userxattr`.
        userxattr: bool,
    },
    /// A single writable directory: an image without layers, or with one that
    /// the snapshotter copied.
    Directory {
        /// The directory.
        source: PathBuf,
    },
    /// Nothing in it can change, so that there is nothing to capture.
    ReadOnly,
}

impl RootfsMount {
    /// Understands the mounts that make up a rootfs.
    ///
    /// # Errors
    /// `Obstacle` if such a rootfs cannot be captured; the message says why.
    pub fn parse(mounts: &[RootfsMountRequest]) -> Result<RootfsMount> {
        let mount = match mounts {
            [] => {
                return Err(obstacle(
                    "it is a directory of the host (root.path in the spec), not a snapshot",
                ));
            }
            [mount] if mount.target.is_empty() || mount.target == "/" => mount,
            [mount] => {
                let target = &mount.target;
                return Err(obstacle(format!("a mount covers only {target} of it")));
            }
            mounts => {
                let kinds: Vec<_> = mounts.iter().map(|mount| mount.kind.as_str()).collect();
                let kinds = kinds.join(", ");
                return Err(obstacle(format!("it consists of several mounts ({kinds})")));
            }
        };
        let options = split_options(&mount.options);
        match mount.kind.as_str() {
            "overlay" => overlay(&options),
            "bind" | "rbind" => Ok(bind(mount, &options)),
            "" if options.iter().any(|o| o == b"bind" || o == b"rbind") => {
                Ok(bind(mount, &options))
            }
            kind => Err(obstacle(format!(
                "its filesystem type is {kind}; use a snapshotter that makes overlay mounts"
            ))),
        }
    }

    /// Opens the topmost layer below the writable one, which the container's files go on in.
    pub fn topmost_lower(&self) -> Result<Upper> {
        match self {
            RootfsMount::Overlay {
                lower, userxattr, ..
            } if !lower.is_empty() => {
                let userxattr = *userxattr;
                Upper::open(&lower[0], Layering::Overlay { userxattr })
            }
            _ => Err(obstacle(
                "it is said to stand on the files of a world, and stands on nothing",
            )),
        }
    }

    /// Opens the writable layer, if there is one.
    pub fn upper(&self) -> Result<Option<Upper>> {
        match self {
            RootfsMount::Overlay {
                upper, userxattr, ..
            } => {
                let userxattr = *userxattr;
                Upper::open(upper, Layering::Overlay { userxattr }).map(Some)
            }
            RootfsMount::Directory { source } => Upper::open(source, Layering::Plain).map(Some),
            RootfsMount::ReadOnly => Ok(None),
        }
    }
}

fn obstacle(why: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Obstacle,
        format!("the rootfs cannot be captured: {why}"),
    )
}

fn bind(mount: &RootfsMountRequest, options: &[Vec<u8>]) -> RootfsMount {
    match options.iter().any(|option| option == b"ro") {
        true => RootfsMount::ReadOnly,
        false => RootfsMount::Directory {
            source: PathBuf::from(&mount.source),
        },
    }
}

fn overlay(options: &[Vec<u8>]) -> Result<RootfsMount> {
    let mut lower = Vec::new();
    let (mut upper, mut work, mut userxattr) = (None, None, false);
    let mut read_only = false;
    for option in options {
        let equals = option.iter().position(|&byte| byte == b'=');
        let (key, value) = option.split_at(equals.unwrap_or(option.len()));
        let value = value.strip_prefix(b"=").unwrap_or(value);
        match key {
            b"lowerdir" => lower = lower_dirs(value)?,
            b"lowerdir+" => lower.push(to_path(value.to_vec())),
            b"datadir+" => return Err(data_only()),
            b"upperdir" => upper = Some(to_path(unescape(value))),
            b"workdir" => work = Some(to_path(unescape(value))),
            b"userxattr" => userxattr = true,
            b"ro" => read_only = true,
            _ => {}
        }
    }
    match (upper, work) {
        (Some(upper), Some(work)) if !read_only => Ok(RootfsMount::Overlay {
            lower,
            upper,
            work,
            userxattr,
        }),
        (Some(_), None) => Err(obstacle("its overlay has an upperdir but no workdir")),
        _ => Ok(RootfsMount::ReadOnly),
    }
}

fn data_only() -> Error {
    obstacle("its overlay has data-only layers, which need the overlay option metacopy")
}

/// The directories of `lowerdir=`: between colons, where a backslash takes
/// its special meaning from the next byte.
fn lower_dirs(value: &[u8]) -> Result<Vec<PathBuf>> {
    let dirs = split_unescaped(value, b':');
    if dirs.iter().any(Vec::is_empty) {
        return Err(data_only());
    }
    Ok(dirs.iter().map(|dir| to_path(unescape(dir))).collect())
}

/// Options one by one: the kernel gets them joined by commas.
fn split_options(options: &[String]) -> Vec<Vec<u8>> {
    split_unescaped(options.join(",").as_bytes(), b',')
}

fn split_unescaped(text: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut escaped = false;
    for &byte in text {
        if byte == separator && !escaped {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut escaped = false;
    for &byte in text {
        escaped = byte == b'\\' && !escaped;
        if !escaped {
            plain.push(byte);
        }
    }
    plain
}

fn to_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str, source: &str, options: &[&str]) -> RootfsMountRequest {
        RootfsMountRequest {
            kind: kind.into(),
            source: source.into(),
            options: options.iter().map(|&option| option.into()).collect(),
            target: String::new(),
        }
    }

    fn parse(kind: &str, options: &[&str]) -> Result<RootfsMount> {
        RootfsMount::parse(&[request(kind, "/src", options)])
    }

    #[test]
    fn overlay_options_are_unescaped_as_the_kernel_does() {
        let options = [
            "index=off",
            "userxattr",
            r"workdir=/w\\ork",
            r"upperdir=/up\,per:x",
            r"lowerdir=/a\:b:/c\,d:/e\\:/f",
        ];
        let expected = RootfsMount::Overlay {
            lower: ["/a:b", "/c,d", r"/e\", "/f"].map(PathBuf::from).into(),
            upper: "/up,per:x".into(),
            work: r"/w\ork".into(),
            userxattr: true,
        };
        assert_eq!(parse("overlay", &options).unwrap(), expected);
    }

    #[test]
    fn options_may_come_joined() {
        let joined = parse("overlay", &["upperdir=/u,workdir=/w,lowerdir=/l"]).unwrap();
        let apart = parse("overlay", &["upperdir=/u", "workdir=/w", "lowerdir=/l"]).unwrap();
        assert_eq!(joined, apart);
    }

    #[test]
    fn what_cannot_change_is_read_only() {
        let views: [(&str, &[&str]); 3] = [
            ("overlay", &["lowerdir=/a:/b"]),
            ("bind", &["ro", "rbind"]),
            (
                "overlay",
                &["ro", "upperdir=/u", "workdir=/w", "lowerdir=/a"],
            ),
        ];
        for (kind, options) in views {
            assert_eq!(parse(kind, options).unwrap(), RootfsMount::ReadOnly);
        }
    }

    #[test]
    fn a_writable_bind_is_one_directory() {
        let source = PathBuf::from("/src");
        let expected = RootfsMount::Directory { source };
        assert_eq!(parse("bind", &["rw", "rbind"]).unwrap(), expected);
        assert_eq!(parse("", &["rbind", "rw"]).unwrap(), expected);
    }

    #[test]
    fn the_rest_is_an_obstacle_that_says_why() {
        let overlay = || request("overlay", "overlay", &["upperdir=/u", "workdir=/w"]);
        let below = RootfsMountRequest {
            target: "/usr".into(),
            ..overlay()
        };
        let cases = [
            (vec![], "root.path"),
            (vec![request("erofs", "/x.erofs", &["ro", "loop"])], "erofs"),
            (vec![request("ext4", "/dev/dm-1", &[])], "ext4"),
            (
                vec![request("fuse3.fuse-overlayfs", "o", &["upperdir=/u"])],
                "fuse",
            ),
            (vec![request("erofs", "/x", &[]), overlay()], "several"),
            (vec![below], "/usr"),
            (vec![request("overlay", "o", &["upperdir=/u"])], "workdir"),
            (
                vec![request("overlay", "o", &["lowerdir=/a::/b"])],
                "metacopy",
            ),
        ];
        for (mounts, why) in cases {
            let error = RootfsMount::parse(&mounts).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Obstacle);
            assert!(error.to_string().contains(why), "{error}");
        }
    }
}
