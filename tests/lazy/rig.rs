//! A world of a real process in a store, page servers, and siblings restored with them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use time::OffsetDateTime;
use worldshim::criu::Criu;
use worldshim::digest::Digest;
use worldshim::error::Result;
use worldshim::lazy::{Line, News, handover, line};
use worldshim::store::Store;
use worldshim::world::artifact::{self, PackRequest};
use worldshim::world::directory::WorldDirWriter;
use worldshim::world::follow::ImageHasher;
use worldshim::world::host::HostFacts;
use worldshim::world::manifest::*;
use worldshim::world::processes::{
    self, DumpParameters, DumpRequest, RestoreRequest, RestoredStdio, TcpPolicy,
};

use crate::container::{Container, Place, freeze, read_until};

const GUEST: &str = include_str!("guest.py");

/// A process that was dumped when it was ready, as a world in a store of its own.
pub struct World {
    pub original: Container,
    pub parameters: DumpParameters,
    pub digest: Digest,
    pub store: Store,
    folder: TempDir,
}

impl World {
    /// Of a program in python, which goes on where it calls `wait_for_go`.
    pub fn new(program: &str) -> World {
        let script = format!("{GUEST}\n{program}");
        let place = Place::new(&["/usr/bin/python3", "-u", "-c", &script]);
        let (original, output) = place.start();
        read_until(&output, "ready\n");
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("world");
        let writer = WorldDirWriter::create(&path).unwrap();
        let parameters = dump(&original, &path);
        let hasher = ImageHasher::start(writer.dir()).unwrap();
        let spec = writer.write("spec.json", b"{}").unwrap();
        let env = writer.write("env.json", b"{}").unwrap();
        let images = Part::new(PartKind::Processes, hasher.finish().unwrap());
        let parts = vec![
            images,
            Part::new(PartKind::Spec, vec![spec]),
            Part::new(PartKind::Env, vec![env]),
        ];
        let manifest = manifest(parts, &parameters);
        writer.commit(&manifest, false).unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let packed = artifact::pack(&PackRequest {
            world: &path,
            lease: &store.lease().unwrap(),
            parent: None,
            base: None,
            share_all: false,
            name: Some(&"test:1".parse().unwrap()),
            progress: &|_| {},
        })
        .unwrap();
        std::fs::remove_dir_all(&path).unwrap();
        World {
            original,
            parameters,
            digest: packed.published.digest,
            store,
            folder,
        }
    }

    /// A stage: a world directory for forks.
    pub fn stage(&self, lazily: bool) -> TempDir {
        let stage = tempfile::tempdir_in("/var/tmp").unwrap();
        let lease = self.store.lease().unwrap();
        lease.hold_world(&self.digest).unwrap();
        artifact::unpack_for_fork(&lease, &self.digest, &stage.path().join("world"), lazily)
            .unwrap();
        stage
    }

    /// A page server of its own.
    pub fn serve(&self) -> PageServer {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let socket = self.folder.path().join(format!("{number}.sock"));
        let mut child = Command::new("world")
            .args(["-v", "page-server", "--linger", "1", "--store"])
            .arg(self.store.path())
            .arg("--socket")
            .arg(&socket)
            .arg(self.digest.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        PageServer { child, socket }
    }

    /// A sibling whose memory comes lazily.
    pub fn fork(&self, server: &PageServer, stage: &TempDir, name: &str) -> Sibling {
        self.try_fork(server, stage, name)
            .unwrap_or_else(|error| panic!("fork: {error}"))
    }

    /// A sibling of the server at a socket.
    pub fn fork_at(&self, socket: &Path, stage: &TempDir, name: &str) -> Sibling {
        self.connect_and_restore(socket, stage, name)
            .unwrap_or_else(|error| panic!("fork: {error}"))
    }

    pub fn try_fork(&self, server: &PageServer, stage: &TempDir, name: &str) -> Result<Sibling> {
        self.connect_and_restore(&server.socket, stage, name)
    }

    fn connect_and_restore(&self, socket: &Path, stage: &TempDir, name: &str) -> Result<Sibling> {
        let place = Place::beside(&self.original.place);
        std::fs::write(place.rootfs().join("go"), "").unwrap();
        let began = Instant::now();
        let mut line = Line::connect(socket, name)?;
        let listener = handover::listen(&place.log())?;
        let (stop, stopper) = std::io::pipe().unwrap();
        let (restored, forwarded) = std::thread::scope(|scope| {
            let forwarding = scope.spawn(|| handover::forward(&listener, &mut line, stop.as_fd()));
            let restored = self.restore(&place, stage, true);
            drop(stopper);
            (restored, forwarding.join().unwrap())
        });
        let (pid, output) = restored?;
        forwarded?;
        Ok(Sibling {
            container: Container { place, pid },
            output,
            line: Guardian::start(line),
            took: began.elapsed(),
        })
    }

    /// A sibling with all of its memory.
    pub fn fork_eagerly(&self, stage: &TempDir) -> (Container, OwnedFd, Duration) {
        let place = Place::beside(&self.original.place);
        std::fs::write(place.rootfs().join("go"), "").unwrap();
        let began = Instant::now();
        let (pid, output) = self.restore(&place, stage, false).unwrap();
        (Container { place, pid }, output, began.elapsed())
    }

    fn restore(&self, place: &Place, stage: &TempDir, lazy_pages: bool) -> Result<(i32, OwnedFd)> {
        let (reader, writer) = std::io::pipe().unwrap();
        let restored = processes::restore(&mut RestoreRequest {
            criu: &Criu::find(None)?,
            spec: &place.spec(),
            parameters: &self.parameters,
            bundle: &place.base.join("bundle"),
            rootfs: &place.rootfs(),
            images_dir: &stage.path().join("world"),
            work_dir: &place.log(),
            cgroup_procs: &place.cgroup_procs(),
            stdio: RestoredStdio::Streams([None, Some(writer.as_fd()), Some(writer.as_fd())]),
            tcp: TcpPolicy::Close,
            lsm_profile: None,
            lazy_pages,
            timeout: Duration::from_secs(60),
            cancel: None,
            before_running: &mut |_| Ok(()),
            before_resuming: &mut |_| Ok(()),
        })?;
        Ok((restored.pid, reader.into()))
    }
}

fn dump(original: &Container, images: &Path) -> DumpParameters {
    let freezer = original.place.freezer();
    let set = |frozen| {
        freeze(&freezer, frozen);
        Ok(())
    };
    processes::settle(original.pid, &freezer, || set(true), || set(false)).unwrap();
    processes::dump(&DumpRequest {
        criu: &Criu::find(None).unwrap(),
        init: original.pid,
        spec: &original.place.spec(),
        rootfs: &original.place.rootfs(),
        images_dir: images,
        work_dir: &original.place.log(),
        freezer_cgroup: Some(&freezer),
        new_network: None,
        leave_running: true,
        file_locks: true,
        external_unix: false,
        ghost_limit: 64 << 20,
        timeout: Duration::from_secs(60),
        cancel: None,
    })
    .unwrap_or_else(|error| panic!("dump: {error}"))
    .parameters
}

fn manifest(parts: Vec<Part>, parameters: &DumpParameters) -> Manifest {
    Manifest {
        base: None,
        checksum: Digest::default(),
        container: ContainerIdentity {
            id: "test".into(),
            labels: BTreeMap::new(),
            namespace: "default".into(),
            runtime: "io.containerd.world.v1".into(),
        },
        created: OffsetDateTime::now_utc(),
        dump: parameters.clone(),
        format: FORMAT,
        host: HostFacts::gather(Some("4.1.1")).unwrap(),
        image: None,
        kind: KIND.into(),
        omitted: Vec::new(),
        parts,
        redacted: Vec::new(),
        times: Times {
            frozen_ns: 1,
            parts_ns: BTreeMap::new(),
            total_ns: 2,
        },
    }
}

/// A `world page-server`; killed when dropped.
pub struct PageServer {
    pub child: Child,
    pub socket: PathBuf,
}

impl PageServer {
    pub fn state(&self) -> worldshim::lazy::message::State {
        line::state(&self.socket).unwrap()
    }

    /// Waits until it has ended by itself.
    pub fn ends(mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(
                Instant::now() < end,
                "the server goes on: {:?}",
                self.state()
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success(), "{status}");
        assert!(!self.socket.exists());
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Holds a line, as a shim does.
pub struct Guardian {
    news: Receiver<News>,
}

impl Guardian {
    fn start(mut line: Line) -> Guardian {
        let (sender, news) = channel();
        std::thread::spawn(move || {
            let said = line.recv().unwrap_or(News::Closed);
            let _ = sender.send(said.clone());
            if said != News::Independent {
                // Whoever is killed must be dead before its memory becomes zeros.
                std::thread::sleep(Duration::from_secs(8));
            }
            drop(line);
        });
        Guardian { news }
    }

    /// What was said, within some seconds.
    pub fn hears(&self) -> News {
        self.news
            .recv_timeout(Duration::from_secs(10))
            .expect("news on the line")
    }

    pub fn has_heard(&self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

/// A restored sibling.
pub struct Sibling {
    pub container: Container,
    pub output: OwnedFd,
    pub line: Guardian,
    pub took: Duration,
}

impl Sibling {
    /// Waits for the end of what its program checks.
    pub fn is_all_right(&self) -> String {
        let text = read_until(&self.output, "\n");
        let text = match text.contains("all right") || text.contains("WRONG") {
            true => text,
            false => text + &read_until(&self.output, "all right"),
        };
        assert!(!text.contains("WRONG"), "{text}");
        text
    }
}
