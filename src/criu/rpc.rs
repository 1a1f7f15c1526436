//! The messages of CRIU's RPC that we use (protobuf, proto2).
//!
//! Field numbers are those of CRIU's `rpc.proto` (version 4.2, MIT licence);
//! fields that we never set are left out, unknown ones are skipped on receipt.

use prost::{Enumeration, Message};

/// What is asked of CRIU, or what a message from it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum RequestType {
    /// Nothing; CRIU uses it for a request that it did not understand.
    Empty = 0,
    /// Write the images of a process tree.
    Dump = 1,
    /// Bring a process tree back from its images.
    Restore = 2,
    /// Check the kernel.
    Check = 3,
    /// Write the memory that changed, and go on tracking.
    PreDump = 4,
    /// A notification from CRIU, and our answer to one.
    Notify = 6,
    /// Which features kernel and CRIU have.
    FeatureCheck = 9,
    /// CRIU's version.
    Version = 10,
    /// Like `PreDump`, but without waiting for a further request.
    SinglePreDump = 13,
}

/// What CRIU does about control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum CgroupMode {
    /// Neither record nor restore them.
    Ignore = 0,
    /// Record them, restore no properties.
    None = 1,
    /// Restore properties only.
    Props = 2,
    /// Restore them where they do not exist.
    Soft = 3,
    /// Restore everything.
    Full = 4,
    /// Fail where they exist already.
    Strict = 5,
    /// CRIU's choice.
    Default = 6,
}

/// How CRIU keeps packets away from sockets while it reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum NetworkLock {
    /// With iptables' commands.
    Iptables = 1,
    /// With nftables' library.
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

/// A mount that is not CRIU's business: its key and what stands for it.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ExternalMount {
    /// The mount point in the container when dumping, the key when restoring.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// The key when dumping, the path to bind when restoring.
    #[prost(string, required, tag = "2")]
    pub value: String,
}

/// A namespace that restored processes enter.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct JoinNamespace {
    /// `net`, `ipc`, `uts`, `user`, `time`, `mnt`.
    #[prost(string, required, tag = "1")]
    pub kind: String,
    /// Path of the namespace.
    #[prost(string, required, tag = "2")]
    pub path: String,
    /// Only for `user`: uid and gid to take there.
    #[prost(string, optional, tag = "3")]
    pub extra: Option<String>,
}

/// A descriptor of the `criu` process that takes the place of a file in the images.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct InheritFd {
    /// The file's name in the images, such as `pipe:[4711]`.
    #[prost(string, required, tag = "1")]
    pub key: String,
    /// The descriptor's number in the `criu` process.
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

/// Where a controller's tree of cgroups begins for a restore.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct CgroupRoot {
    /// The controller; none for all.
    #[prost(string, optional, tag = "1")]
    pub controller: Option<String>,
    /// The cgroup.
    #[prost(string, required, tag = "2")]
    pub path: String,
}

/// The options of a request. `None` leaves CRIU's own default.
#[derive(Clone, PartialEq, Message)]
pub struct Options {
    /// Directory of the images: a descriptor of *our* process.
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    /// Root of the tree to dump.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    /// Let the processes go on after the dump.
    #[prost(bool, optional, tag = "3")]
    pub leave_running: Option<bool>,
    /// Allow unix sockets whose other end is outside.
    #[prost(bool, optional, tag = "4")]
    pub ext_unix_sk: Option<bool>,
    /// Capture, or bring back, established TCP connections.
    #[prost(bool, optional, tag = "5")]
    pub tcp_established: Option<bool>,
    /// Use any path of a device whose name is gone.
    #[prost(bool, optional, tag = "6")]
    pub evasive_devices: Option<bool>,
    /// Allow a terminal and a session from outside.
    #[prost(bool, optional, tag = "7")]
    pub shell_job: Option<bool>,
    /// Capture, or bring back, file locks.
    #[prost(bool, optional, tag = "8")]
    pub file_locks: Option<bool>,
    /// 1 errors, 2 warnings, 3 information, 4 debug.
    #[prost(int32, optional, tag = "9")]
    pub log_level: Option<i32>,
    /// Name of the log in the work directory.
    #[prost(string, optional, tag = "10")]
    pub log_file: Option<String>,
    /// Send a notification at each stage.
    #[prost(bool, optional, tag = "12")]
    pub notify_scripts: Option<bool>,
    /// Root of the container; at a restore a mount point.
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    /// Images of an earlier pre-dump, relative to the images directory.
    #[prost(string, optional, tag = "14")]
    pub parent_img: Option<String>,
    /// Track changes of memory.
    #[prost(bool, optional, tag = "15")]
    pub track_mem: Option<bool>,
    /// Drop pages from the parent's images that this dump replaces.
    #[prost(bool, optional, tag = "16")]
    pub auto_dedup: Option<bool>,
    /// Directory of logs and sockets: a descriptor of *our* process.
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    /// Give unlinked files that have another name a temporary one.
    #[prost(bool, optional, tag = "18")]
    pub link_remap: Option<bool>,
    /// Which CPU features are recorded or compared.
    #[prost(uint32, optional, tag = "20")]
    pub cpu_cap: Option<u32>,
    /// Look for the files behind inotify watches.
    #[prost(bool, optional, tag = "21")]
    pub force_irmap: Option<bool>,
    /// Mounts that are not CRIU's business.
    #[prost(message, repeated, tag = "23")]
    pub ext_mnt: Vec<ExternalMount>,
    /// Superseded by `manage_cgroups_mode`.
    #[prost(bool, optional, tag = "24")]
    pub manage_cgroups: Option<bool>,
    /// Where the trees of cgroups begin.
    #[prost(message, repeated, tag = "25")]
    pub cg_root: Vec<CgroupRoot>,
    /// The restored tree becomes a child of criu's parent.
    #[prost(bool, optional, tag = "26")]
    pub rst_sibling: Option<bool>,
    /// Descriptors that take the place of files in the images.
    #[prost(message, repeated, tag = "27")]
    pub inherit_fd: Vec<InheritFd>,
    /// Find external mounts without being told.
    #[prost(bool, optional, tag = "28")]
    pub auto_ext_mnt: Option<bool>,
    /// Allow external mounts that share propagation.
    #[prost(bool, optional, tag = "29")]
    pub ext_sharing: Option<bool>,
    /// Allow external mounts that receive propagation.
    #[prost(bool, optional, tag = "30")]
    pub ext_masters: Option<bool>,
    /// Mount points to leave out.
    #[prost(string, repeated, tag = "31")]
    pub skip_mnt: Vec<String>,
    /// What CRIU does about control groups.
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    /// Largest unlinked file that is captured, in bytes.
    #[prost(uint32, optional, tag = "35")]
    pub ghost_limit: Option<u32>,
    /// Resources that are not CRIU's business, such as `net[INODE]:KEY`.
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    /// Namespaces to create empty, as flags of clone(2).
    #[prost(uint32, optional, tag = "38")]
    pub empty_ns: Option<u32>,
    /// Namespaces that restored processes enter.
    #[prost(message, repeated, tag = "39")]
    pub join_ns: Vec<JoinNamespace>,
    /// Directory of the freezer's cgroup that holds the container.
    #[prost(string, optional, tag = "44")]
    pub freeze_cgroup: Option<String>,
    /// Seconds that stopping the processes may take.
    #[prost(uint32, optional, tag = "45")]
    pub timeout: Option<u32>,
    /// Drop connections that are still being made.
    #[prost(bool, optional, tag = "46")]
    pub tcp_skip_in_flight: Option<bool>,
    /// Restore sysctls only where they exist.
    #[prost(bool, optional, tag = "47")]
    pub weak_sysctls: Option<bool>,
    /// Bring memory back when it is touched.
    #[prost(bool, optional, tag = "48")]
    pub lazy_pages: Option<bool>,
    /// Send the masters of terminals that have no master in the images.
    #[prost(bool, optional, tag = "50")]
    pub orphan_pts_master: Option<bool>,
    /// Close connections instead of bringing them back.
    #[prost(bool, optional, tag = "52")]
    pub tcp_close: Option<bool>,
    /// LSM profile for the restored processes, `TYPE:NAME`.
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    /// LSM context for restored mounts.
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
    /// How packets are kept away.
    #[prost(enumeration = "NetworkLock", optional, tag = "64")]
    pub network_lock: Option<i32>,
    /// Restore mounts the way CRIU before 3.17 did.
    #[prost(bool, optional, tag = "65")]
    pub mntns_compat_mode: Option<bool>,
    /// Restore a file although its permissions changed.
    #[prost(bool, optional, tag = "66")]
    pub skip_file_rwx_check: Option<bool>,
}

/// Features to ask for, and which of them there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct FeatureSet {
    /// Memory changes can be tracked (pre-dump works).
    #[prost(bool, optional, tag = "1")]
    pub mem_track: Option<bool>,
    /// Memory can be brought back when it is touched.
    #[prost(bool, optional, tag = "2")]
    pub lazy_pages: Option<bool>,
    /// Reused process ids can be told apart between pre-dumps.
    #[prost(bool, optional, tag = "3")]
    pub pidfd_store: Option<bool>,
}

/// A message to CRIU.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// What is asked.
    #[prost(enumeration = "RequestType", required, tag = "1")]
    pub kind: i32,
    /// Options of a dump, restore or check.
    #[prost(message, optional, tag = "2")]
    pub opts: Option<Options>,
    /// Our answer to a notification.
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
    /// Wait for a further request after this one.
    #[prost(bool, optional, tag = "4")]
    pub keep_open: Option<bool>,
    /// Features to ask for.
    #[prost(message, optional, tag = "5")]
    pub features: Option<FeatureSet>,
}

/// Result of a restore.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct RestoreResult {
    /// The tree's root, in criu's pid namespace.
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

/// A stage that CRIU has reached.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct NotifyMessage {
    /// The stage's name.
    #[prost(string, optional, tag = "1")]
    pub script: Option<String>,
    /// The tree's root, where CRIU tells it.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

/// CRIU's version.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct VersionNumbers {
    /// The first number.
    #[prost(int32, required, tag = "1")]
    pub major: i32,
    /// The second number.
    #[prost(int32, required, tag = "2")]
    pub minor: i32,
    /// Commit, for builds between releases.
    #[prost(string, optional, tag = "3")]
    pub gitid: Option<String>,
    /// The third number.
    #[prost(int32, optional, tag = "4")]
    pub sublevel: Option<i32>,
}

/// A message from CRIU.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// What the message is about.
    #[prost(enumeration = "RequestType", required, tag = "1")]
    pub kind: i32,
    /// Whether it was done.
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    /// Result of a restore.
    #[prost(message, optional, tag = "4")]
    pub restore: Option<RestoreResult>,
    /// The stage reached.
    #[prost(message, optional, tag = "5")]
    pub notify: Option<NotifyMessage>,
    /// An errno, where CRIU knows one.
    #[prost(int32, optional, tag = "7")]
    pub errno: Option<i32>,
    /// Which features there are.
    #[prost(message, optional, tag = "8")]
    pub features: Option<FeatureSet>,
    /// The first error of the log, which is seldom the cause.
    #[prost(string, optional, tag = "9")]
    pub errmsg: Option<String>,
    /// The version.
    #[prost(message, optional, tag = "10")]
    pub version: Option<VersionNumbers>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_what_criu_reads() {
        let request = Request {
            kind: RequestType::Dump.into(),
            opts: Some(Options {
                images_dir_fd: 5,
                network_lock: Some(NetworkLock::Skip.into()),
                ..Options::default()
            }),
            ..Request::default()
        };
        // kind=1; opts(len 5){images_dir_fd=5; network_lock(64)=3}
        assert_eq!(
            request.encode_to_vec(),
            [0x08, 1, 0x12, 5, 0x08, 5, 0x80, 0x04, 3]
        );
    }

    #[test]
    fn unknown_fields_of_a_newer_criu_are_skipped() {
        let mut bytes = Response {
            kind: RequestType::Version.into(),
            success: true,
            ..Response::default()
        }
        .encode_to_vec();
        bytes.extend([0xa2, 0x06, 3, 1, 2, 3]); // field 100, three bytes
        assert!(Response::decode(&bytes[..]).is_ok_and(|response| response.success));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Response::decode(&bytes[..]);
        }
    }
}
