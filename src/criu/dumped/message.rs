//! The fields of CRIU's messages that we look at (`images/*.proto` in CRIU's
//! sources). Strings are bytes here: CRIU writes what the kernel says.

use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Core {
    #[prost(message, optional, tag = "3")]
    pub task: Option<TaskCore>,
    #[prost(message, optional, tag = "5")]
    pub thread: Option<ThreadCore>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TaskCore {
    #[prost(uint32, required, tag = "1")]
    pub state: u32,
    #[prost(bytes = "vec", required, tag = "6")]
    pub command: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ThreadCore {
    #[prost(message, optional, tag = "10")]
    pub credentials: Option<Credentials>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Credentials {
    #[prost(uint32, required, tag = "3")]
    pub user: u32,
    #[prost(uint32, required, tag = "4")]
    pub group: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Ids {
    #[prost(uint32, required, tag = "2")]
    pub files: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct FileSystem {
    #[prost(uint32, required, tag = "1")]
    pub working_dir: u32,
    #[prost(uint32, required, tag = "2")]
    pub root: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Descriptor {
    #[prost(uint32, required, tag = "1")]
    pub id: u32,
    #[prost(uint32, required, tag = "2")]
    pub flags: u32,
    #[prost(uint32, required, tag = "4")]
    pub number: u32,
}

/// A memory map's fields that are not regions.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Map {
    /// Where the first thread's stack began, in bytes.
    #[prost(uint64, required, tag = "5")]
    pub stack: u64,
    #[prost(uint32, required, tag = "12")]
    pub executable: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Area {
    #[prost(uint64, required, tag = "1")]
    pub start: u64,
    #[prost(uint64, required, tag = "2")]
    pub end: u64,
    /// In bytes.
    #[prost(uint64, required, tag = "3")]
    pub offset: u64,
    #[prost(uint64, required, tag = "4")]
    pub shared: u64,
    #[prost(uint32, required, tag = "5")]
    pub protection: u32,
    #[prost(uint32, required, tag = "6")]
    pub flags: u32,
    #[prost(uint32, required, tag = "7")]
    pub status: u32,
    /// A bit per advice of madvise(2), by its number.
    #[prost(uint64, optional, tag = "9")]
    pub advice: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MemfdInode {
    #[prost(bytes = "vec", required, tag = "1")]
    pub name: Vec<u8>,
    #[prost(uint32, required, tag = "5")]
    pub shared: u32,
    #[prost(uint64, required, tag = "7")]
    pub inode: u64,
}

/// Of any kind of file; which one, says the field it is in.
#[derive(Clone, PartialEq, Message)]
pub(super) struct FileEntry {
    #[prost(uint32, required, tag = "1")]
    pub kind: u32,
    #[prost(uint32, required, tag = "2")]
    pub id: u32,
    #[prost(message, optional, tag = "3")]
    pub regular: Option<Regular>,
    #[prost(message, optional, tag = "4")]
    pub inet: Option<Inet>,
    #[prost(message, optional, tag = "7")]
    pub netlink: Option<Netlink>,
    #[prost(message, optional, tag = "8")]
    pub eventfd: Option<Eventfd>,
    #[prost(message, optional, tag = "9")]
    pub epoll: Option<Epoll>,
    #[prost(message, optional, tag = "10")]
    pub signalfd: Option<Signalfd>,
    #[prost(message, optional, tag = "12")]
    pub timerfd: Option<Timerfd>,
    #[prost(message, optional, tag = "16")]
    pub unix: Option<Unix>,
    #[prost(message, optional, tag = "17")]
    pub fifo: Option<Fifo>,
    #[prost(message, optional, tag = "18")]
    pub pipe: Option<Pipe>,
    #[prost(message, optional, tag = "19")]
    pub terminal: Option<Terminal>,
    #[prost(message, optional, tag = "20")]
    pub memfd: Option<Memfd>,
    #[prost(message, optional, tag = "22")]
    pub pidfd: Option<Pidfd>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Regular {
    #[prost(uint32, required, tag = "2")]
    pub flags: u32,
    #[prost(uint64, required, tag = "3")]
    pub position: u64,
    #[prost(bytes = "vec", required, tag = "6")]
    pub path: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Inet {
    #[prost(uint32, required, tag = "3")]
    pub family: u32,
    #[prost(uint32, required, tag = "5")]
    pub protocol: u32,
    #[prost(uint32, required, tag = "6")]
    pub state: u32,
    #[prost(uint32, required, tag = "7")]
    pub local_port: u32,
    #[prost(uint32, required, tag = "8")]
    pub peer_port: u32,
    #[prost(uint32, required, tag = "9")]
    pub flags: u32,
    #[prost(uint32, repeated, packed = "false", tag = "11")]
    pub local: Vec<u32>,
    #[prost(uint32, repeated, packed = "false", tag = "12")]
    pub peer: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Netlink {
    #[prost(uint32, required, tag = "3")]
    pub protocol: u32,
    #[prost(uint32, required, tag = "6")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Eventfd {
    #[prost(uint32, required, tag = "2")]
    pub flags: u32,
    #[prost(uint64, required, tag = "4")]
    pub counter: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Epoll {
    #[prost(uint32, required, tag = "2")]
    pub flags: u32,
    #[prost(message, repeated, tag = "4")]
    pub watched: Vec<Watched>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Watched {
    #[prost(uint32, required, tag = "2")]
    pub descriptor: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Signalfd {
    #[prost(uint32, required, tag = "2")]
    pub flags: u32,
    #[prost(uint64, required, tag = "4")]
    pub mask: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Timerfd {
    #[prost(uint32, required, tag = "2")]
    pub flags: u32,
    #[prost(uint64, required, tag = "9")]
    pub seconds: u64,
    #[prost(uint64, required, tag = "10")]
    pub nanoseconds: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Unix {
    #[prost(uint32, required, tag = "2")]
    pub inode: u32,
    #[prost(uint32, required, tag = "3")]
    pub kind: u32,
    #[prost(uint32, required, tag = "4")]
    pub state: u32,
    #[prost(uint32, required, tag = "5")]
    pub flags: u32,
    #[prost(uint32, required, tag = "8")]
    pub peer: u32,
    #[prost(bytes = "vec", required, tag = "11")]
    pub name: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Fifo {
    #[prost(uint32, required, tag = "2")]
    pub pipe: u32,
    #[prost(uint32, optional, tag = "3")]
    pub file: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pipe {
    #[prost(uint32, required, tag = "2")]
    pub pipe: u32,
    #[prost(uint32, required, tag = "3")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Terminal {
    #[prost(uint32, required, tag = "3")]
    pub flags: u32,
    #[prost(uint32, optional, tag = "6")]
    pub file: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Memfd {
    #[prost(uint32, required, tag = "2")]
    pub flags: u32,
    #[prost(uint64, required, tag = "3")]
    pub position: u64,
    #[prost(uint32, required, tag = "5")]
    pub inode: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pidfd {
    #[prost(uint32, required, tag = "3")]
    pub flags: u32,
    #[prost(int32, required, tag = "4")]
    pub process: i32,
}
