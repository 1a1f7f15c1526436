//! CRIU's images without those of memory, as one blob: a zstd stream of a tar.
//!
//! The tar has one plain file per image, sorted by name, all its headers' other
//! fields fixed, so that the same images are the same bytes. A reader takes what
//! `world.json` lists, in its order and its sizes, and nothing else.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use tar::{Archive, Builder, EntryType, Header};
use zstd::stream::{read::Decoder, write::Encoder};

use crate::digest::Hashing;
use crate::error::IoContext;
use crate::world::directory::WorldDirWriter;
use crate::world::manifest::PartFile;
use crate::{Error, ErrorKind, Result};

const LEVEL: i32 = 3;
/// The largest window read, as a power of two; level 3 writes less.
const MOST_WINDOW_LOG: u32 = 23;

/// Writes the archive of `files`, each as `open` opens it.
pub(super) fn write<R: Read>(
    files: &[&PartFile],
    mut open: impl FnMut(&PartFile) -> Result<R>,
    out: impl Write,
) -> Result<()> {
    let what = "write the archive of CRIU's images";
    let mut encoder = Encoder::new(out, LEVEL).context(|| what)?;
    encoder.include_checksum(true).context(|| what)?;
    let mut builder = Builder::new(encoder);
    for file in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_path(file.name.as_str()).context(|| what)?;
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(file.size);
        header.set_cksum();
        let mut data = Hashed {
            data: open(file)?.take(file.size),
            hashing: file.hashing(),
        };
        builder.append(&header, &mut data).context(|| what)?;
        if !file.is(data.hashing) {
            let text = format!("{} is not what world.json says", file.name);
            return Err(Error::new(ErrorKind::CorruptWorld, text));
        }
    }
    let encoder = builder.into_inner().context(|| what)?;
    encoder
        .finish()
        .and_then(|mut out| out.flush())
        .context(|| what)
}

/// Writes the images of an archive into a world directory. Each must be what `files` says.
pub(super) fn read(archive: impl Read, files: &[&PartFile], out: &WorldDirWriter) -> Result<()> {
    each(archive, files, &mut |file, image| {
        let mut writer = out.copy_of(file)?;
        io::copy(image, &mut writer).context(|| format!("write {}", file.name))?;
        match writer.finish() == *file {
            true => Ok(()),
            false => Err(altered(file)),
        }
    })
}

/// Reads some images of an archive, together of no more than `limit` bytes, by their names.
pub(super) fn collect(
    archive: impl Read,
    files: &[&PartFile],
    is_wanted: impl Fn(&str) -> bool,
    limit: u64,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut wanted = BTreeMap::new();
    let mut left = limit;
    each(archive, files, &mut |file, image| {
        if !is_wanted(file.name.as_str()) {
            return Ok(());
        }
        left = left.checked_sub(file.size).ok_or_else(|| {
            let text = format!("CRIU's images have more than {} MiB", limit >> 20);
            Error::new(ErrorKind::CorruptWorld, text)
        })?;
        let mut bytes = Vec::new();
        image.read_to_end(&mut bytes).map_err(damaged)?;
        if !file.is_bytes(&bytes) {
            return Err(altered(file));
        }
        wanted.insert(file.name.to_string(), bytes);
        Ok(())
    })?;
    Ok(wanted)
}

/// Hands over each image of an archive, which are those of `files`.
fn each(
    archive: impl Read,
    files: &[&PartFile],
    take: &mut dyn FnMut(&PartFile, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut decoder = Decoder::new(archive).map_err(damaged)?;
    decoder.window_log_max(MOST_WINDOW_LOG).map_err(damaged)?;
    let size: u64 = files.iter().map(|file| archived(file.size)).sum();
    let mut archive = Archive::new(decoder.take(size + (64 << 10)));
    let mut expected = files.iter();
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let Some(file) = expected.next() else {
            return Err(unlike("something that world.json does not list"));
        };
        let fits = entry.header().entry_type() == EntryType::Regular
            && entry.path_bytes().as_ref() == file.name.as_str().as_bytes()
            && entry.size() == file.size;
        if !fits {
            return Err(unlike(
                "images in another order or size than world.json says",
            ));
        }
        take(file, &mut entry)?;
    }
    match expected.next() {
        None => Ok(()),
        Some(file) => Err(unlike(&format!("no {}", file.name))),
    }
}

fn damaged(error: io::Error) -> Error {
    Error::caused_by(
        ErrorKind::CorruptWorld,
        "the archive of CRIU's images",
        error,
    )
}

fn altered(file: &PartFile) -> Error {
    let name = &file.name;
    unlike(&format!("{name} with another content than world.json says"))
}

/// Hashes what is read through it.
struct Hashed<R> {
    data: R,
    hashing: Hashing,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.data.read(buffer)?;
        self.hashing.update(&buffer[..count]);
        Ok(count)
    }
}

/// What a file takes in a tar, in bytes.
fn archived(size: u64) -> u64 {
    size.saturating_add(1024)
}

fn unlike(what: &str) -> Error {
    let text = format!("the archive of CRIU's images holds {what}");
    Error::new(ErrorKind::CorruptWorld, text)
}
