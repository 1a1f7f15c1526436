//! The file that an export becomes: private, whole, or not there.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};
use tempfile::TempPath;
use zstd::stream::write::Encoder;

use super::export::Compression;
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// As podman's.
const ZSTD_LEVEL: i32 = 3;
const BUFFER: usize = 256 << 10;

type Plain = BufWriter<File>;

/// What goes through a compressor on its way to the file.
enum Packer {
    Plain(Plain),
    Gzip(GzEncoder<Plain>),
    Zstd(Encoder<'static, Plain>),
}

/// A tar being written beside its final name; gone when dropped unfinished.
pub(super) struct Output {
    target: PathBuf,
    force: bool,
    /// Where the file system has no files without a name.
    named: Option<TempPath>,
    builder: Builder<Packer>,
}

impl Output {
    /// Begins a file. It takes its name when it is whole.
    ///
    /// [`ErrorKind::AlreadyExists`] where there is one, unless `force`.
    pub fn create(target: &Path, compression: Compression, force: bool) -> Result<Output> {
        if target.is_dir() || (!force && target.symlink_metadata().is_ok()) {
            return Err(taken(target));
        }
        let (file, named) = unfinished(folder(target))
            .context(|| format!("create a file beside {}", target.display()))?;
        let plain = BufWriter::with_capacity(BUFFER, file);
        let packer = match compression {
            Compression::None => Packer::Plain(plain),
            Compression::Gzip => {
                Packer::Gzip(GzEncoder::new(plain, flate2::Compression::default()))
            }
            Compression::Zstd => {
                let mut encoder =
                    Encoder::new(plain, ZSTD_LEVEL).context(|| "begin to compress")?;
                encoder
                    .include_checksum(true)
                    .context(|| "begin to compress")?;
                Packer::Zstd(encoder)
            }
        };
        Ok(Output {
            target: target.to_owned(),
            force,
            named,
            builder: Builder::new(packer),
        })
    }

    /// A folder in the tar.
    pub fn folder(&mut self, path: &str) -> Result<()> {
        let mut header = header(EntryType::Directory, 0o700, 0);
        self.builder
            .append_data(&mut header, format!("{path}/"), io::empty())
            .context(|| format!("write {path}"))
    }

    /// A file in the tar: `size` bytes of `data`.
    pub fn file(&mut self, path: &str, size: u64, data: impl io::Read) -> Result<()> {
        let mut header = header(EntryType::Regular, 0o600, size);
        self.builder
            .append_data(&mut header, path, data.take(size))
            .context(|| format!("write {path}"))
    }

    /// A small file in the tar.
    pub fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.file(path, bytes.len() as u64, bytes)
    }

    /// Makes it durable and gives it its name. Returns its size in bytes.
    pub fn finish(self) -> Result<u64> {
        let context = || format!("write {}", self.target.display());
        let packer = self.builder.into_inner().context(context)?;
        let plain = match packer {
            Packer::Plain(plain) => plain,
            Packer::Gzip(encoder) => encoder.finish().context(context)?,
            Packer::Zstd(encoder) => encoder.finish().context(context)?,
        };
        let file = plain
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .context(context)?;
        file.sync_all().context(context)?;
        let size = file.metadata().context(context)?.len();
        let named = match (self.named, self.force) {
            (Some(path), true) => path.persist(&self.target).map_err(|error| error.error),
            (Some(path), false) => path
                .persist_noclobber(&self.target)
                .map_err(|error| error.error),
            (None, force) => name(&file, &self.target, force),
        };
        named.context(context)?;
        File::open(folder(&self.target))
            .and_then(|folder| folder.sync_all())
            .context(context)?;
        Ok(size)
    }
}

/// A private file without a name, which goes with this process; or one with a name.
fn unfinished(folder: &Path) -> io::Result<(File, Option<TempPath>)> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok((file.into(), None)),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let temporary = temporary_name().tempfile_in(folder)?;
            let (file, path) = temporary.into_parts();
            Ok((file, Some(path)))
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives a file without a name its own.
fn name(file: &File, target: &Path, force: bool) -> io::Result<()> {
    let link = |path: &Path| -> io::Result<()> {
        let file = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(CWD, file, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
        Ok(())
    };
    if !force {
        return link(target);
    }
    let temporary = temporary_name().make_in(folder(target), link)?;
    temporary
        .into_temp_path()
        .persist(target)
        .map_err(|error| error.error)
}

fn temporary_name() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".world-export-");
    builder
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Packer::Plain(out) => out.write(bytes),
            Packer::Gzip(out) => out.write(bytes),
            Packer::Zstd(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Packer::Plain(out) => out.flush(),
            Packer::Gzip(out) => out.flush(),
            Packer::Zstd(out) => out.flush(),
        }
    }
}

/// Everything that could differ from one export to the next is fixed.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn folder(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn taken(target: &Path) -> Error {
    let text = match target.is_dir() {
        true => format!("{} is a directory: name a file", target.display()),
        false => format!(
            "{} is there already: name another file, or use --force",
            target.display()
        ),
    };
    Error::new(ErrorKind::AlreadyExists, text)
}
