//! The images of a dump that hold memory: `pages-N.img`, and the pagemaps that refer to them.
//!
//! Every other image is small and none of this module's business.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};

use super::index::MAX_PAGES;
use super::page::PAGE_SIZE;
use crate::criu::pagemap::{Pagemap, Space, pages_file, pages_id};
use crate::error::IoContext;
use crate::{Error, ErrorKind, Result};

/// A larger pagemap than this, in bytes, is not read: it has millions of runs of addresses.
const MAX_PAGEMAP: u64 = 64 << 20;

/// Whether the image of this name is one that packs replace.
pub fn is_pages(name: &str) -> bool {
    pages_id(name).is_some()
}

/// The images of memory in a directory.
#[derive(Debug)]
pub struct Images {
    dir: OwnedFd,
    files: Vec<PagesImage>,
}

/// A pages file.
#[derive(Debug)]
pub struct PagesImage {
    /// Its id: it is `pages-ID.img`.
    pub id: u32,
    /// Its size in pages.
    pub pages: u64,
    /// The address spaces whose pages it has, each with its number of runs of addresses.
    pub spaces: Vec<(Space, u64)>,
}

impl Images {
    /// Looks at those images in `dir` that are among `names`.
    /// [`ErrorKind::CorruptWorld`] where they do not fit each other.
    pub fn look<'a>(dir: BorrowedFd, names: impl IntoIterator<Item = &'a str>) -> Result<Images> {
        let dir = dir.try_clone_to_owned();
        let mut images = Images {
            dir: dir.context(|| "duplicate a descriptor")?,
            files: Vec::new(),
        };
        let mut spaces = Vec::new();
        for name in names {
            if let Some(id) = pages_id(name) {
                let image = images.look_at(id, name)?;
                images.files.push(image);
            }
            spaces.extend(Space::of_file(name));
        }
        images.files.sort_by_key(|file| file.id);
        spaces.sort_unstable();
        for space in spaces {
            let linked = images.link(space);
            linked.map_err(|error| error.within(space))?;
        }
        Ok(images)
    }

    /// The pages files, by rising id.
    pub fn files(&self) -> &[PagesImage] {
        &self.files
    }

    /// How many pages there are in all.
    pub fn pages(&self) -> u64 {
        self.files.iter().map(|file| file.pages).sum()
    }

    /// Opens a pages file.
    pub fn open(&self, id: u32) -> Result<File> {
        self.open_file(&pages_file(id))
    }

    /// The pagemap of an address space.
    pub fn pagemap(&self, space: Space) -> Result<Vec<u8>> {
        let mut image = Vec::new();
        self.open_file(&space.to_string())?
            .take(MAX_PAGEMAP + 1)
            .read_to_end(&mut image)
            .context(|| format!("read {space}"))?;
        match image.len() as u64 > MAX_PAGEMAP {
            false => Ok(image),
            true => Err(corrupt("the pagemap is too large".into())),
        }
    }

    fn open_file(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(self.dir.as_fd(), name, flags, Mode::empty());
        Ok(File::from(opened.context(|| format!("open {name}"))?))
    }

    fn look_at(&self, id: u32, name: &str) -> Result<PagesImage> {
        let metadata = self.open_file(name)?.metadata();
        let size = metadata.context(|| format!("look at {name}"))?.len();
        let pages = size / PAGE_SIZE as u64;
        if !size.is_multiple_of(PAGE_SIZE as u64) || pages > MAX_PAGES {
            return Err(corrupt(format!("{name} is {size} bytes, not whole pages")));
        }
        Ok(PagesImage {
            id,
            pages,
            spaces: Vec::new(),
        })
    }

    fn link(&mut self, space: Space) -> Result<()> {
        let image = self.pagemap(space)?;
        let pagemap = Pagemap::parse(&image)?;
        let (runs, pages) = pagemap.totals()?;
        let mut files = self.files.iter_mut();
        match files.find(|file| file.id == pagemap.pages_id) {
            Some(file) if file.pages == pages => file.spaces.push((space, runs)),
            None if pages == 0 => {}
            found => {
                let has = found.map_or(0, |file| file.pages);
                let name = pages_file(pagemap.pages_id);
                return Err(corrupt(format!(
                    "it refers to {pages} pages, {name} has {has}: take another checkpoint"
                )));
            }
        }
        Ok(())
    }
}

fn corrupt(text: String) -> Error {
    Error::new(ErrorKind::CorruptWorld, text)
}
