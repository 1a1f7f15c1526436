//! A file that is to be imported: opened once, read as often as need be.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags};
use zstd::stream::read::Decoder;

use super::tar_reader::{Input, TarReader, corrupt};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

const BUFFER: usize = 256 << 10;
/// The largest window read, as a power of two.
const MOST_WINDOW_LOG: u32 = 27;
/// What is compressed may become so many times as large, and [`ANY_SIZE`] bytes larger,
/// before `world.json` has told how much is to come.
const MOST_RATIO: u64 = 1000;
const ANY_SIZE: u64 = 16 << 30;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// How the bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// A tar, compressed or not.
pub(super) struct Source {
    file: File,
    /// Where it begins in the file.
    start: u64,
    length: u64,
    name: String,
    packing: Packing,
}

impl Source {
    /// Opens a regular file.
    pub fn open(path: &Path) -> Result<Source> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty())
            .map(File::from)
            .context(|| format!("open {}", path.display()))?;
        Source::of(file, path.display().to_string())
    }

    /// An open file, called `name` in errors.
    pub fn of(file: File, name: String) -> Result<Source> {
        let metadata = file.metadata().context(|| format!("look at {name}"))?;
        if !metadata.is_file() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{name} is neither a regular file nor a directory"),
            ));
        }
        let mut head = [0; 4];
        let count = file
            .read_at(&mut head, 0)
            .context(|| format!("read {name}"))?;
        let packing = match &head[..count] {
            head if head.starts_with(ZSTD) => Packing::Zstd,
            head if head.starts_with(GZIP) => Packing::Gzip,
            _ => Packing::Plain,
        };
        Ok(Source {
            file,
            start: 0,
            length: metadata.len(),
            name,
            packing,
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether members can be had by their offsets.
    pub fn is_plain(&self) -> bool {
        self.packing == Packing::Plain
    }

    /// A plain tar that is a member of this one.
    pub fn member(&self, offset: u64, size: u64, name: String) -> Result<Source> {
        Ok(Source {
            file: self.another_handle()?,
            start: self.start + offset,
            length: size,
            name,
            packing: Packing::Plain,
        })
    }

    /// Reads it from its beginning.
    pub fn tar(&self) -> Result<TarReader> {
        let bytes = self.section(0, self.length)?;
        let buffered = BufReader::with_capacity(BUFFER, bytes);
        let input = match self.packing {
            Packing::Plain => Input::File(buffered, self.length),
            Packing::Gzip => Input::Stream(Box::new(MultiGzDecoder::new(buffered))),
            Packing::Zstd => {
                let damaged = |error| Error::caused_by(ErrorKind::CorruptWorld, &self.name, error);
                let mut decoder = Decoder::with_buffer(buffered).map_err(damaged)?;
                decoder.window_log_max(MOST_WINDOW_LOG).map_err(damaged)?;
                Input::Stream(Box::new(decoder))
            }
        };
        let most = match self.packing {
            Packing::Plain => u64::MAX,
            Packing::Gzip | Packing::Zstd => self
                .length
                .saturating_mul(MOST_RATIO)
                .saturating_add(ANY_SIZE),
        };
        Ok(TarReader::new(input, self.name.clone(), most))
    }

    /// Bytes of a plain archive by their place.
    pub fn section(&self, offset: u64, size: u64) -> Result<Section> {
        Ok(Section {
            file: self.another_handle()?,
            start: self.start + offset,
            position: 0,
            size,
        })
    }

    fn another_handle(&self) -> Result<File> {
        self.file
            .try_clone()
            .context(|| format!("open {}", self.name))
    }

    /// A member of a plain archive that is a document.
    pub fn read(&self, offset: u64, size: u64, limit: usize) -> Result<Vec<u8>> {
        if size > limit as u64 {
            return Err(corrupt(format!(
                "a document of {size} bytes, at most {limit} are allowed"
            )));
        }
        let mut bytes = vec![0; size as usize];
        self.file
            .read_exact_at(&mut bytes, self.start + offset)
            .context(|| format!("read {}", self.name))?;
        Ok(bytes)
    }
}

/// A stretch of a file, read wherever others read the same file.
pub(super) struct Section {
    file: File,
    start: u64,
    position: u64,
    size: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let count = self
            .file
            .read_at(&mut buffer[..most], self.start + self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
        };
        self.position = position.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
