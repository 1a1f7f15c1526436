//! What an OCI runtime makes of layers: a model that shares nothing with the
//! code it judges, not even the reader.

use std::collections::{BTreeMap, BTreeSet};

/// One entry as it stands in a tar.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Without a slash at its end; the root is empty.
    pub name: Vec<u8>,
    kind: u8,
    link: Vec<u8>,
    /// Mode, owners, time and device of the header, and the PAX records that
    /// are neither a name nor a size.
    about: Vec<u8>,
    data: Vec<u8>,
}

impl Entry {
    /// `+file`, `+dir/`, `-deleted`, `~removed`, `!opaque`, `=link`.
    pub fn summary(&self) -> String {
        let name = String::from_utf8_lossy(&self.name).into_owned();
        let removed = self.about.windows(5).any(|word| word == b"delta");
        match name.rsplit_once('/').unwrap_or(("", &name)) {
            (dir, ".wh..wh..opq") => format!("!{dir}"),
            (_, last) if last.starts_with(".wh.") => {
                let sign = if removed { '~' } else { '-' };
                format!("{sign}{}", name.replace(".wh.", ""))
            }
            _ if self.kind == b'5' => format!("+{name}/"),
            _ if self.kind == b'1' => format!("={name}"),
            _ => format!("+{name}"),
        }
    }
}

fn octal(field: &[u8]) -> usize {
    let digits = field.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, &digit| sum * 8 + usize::from(digit - b'0'))
}

fn until_nul(field: &[u8]) -> Vec<u8> {
    field
        .iter()
        .copied()
        .take_while(|&byte| byte != 0)
        .collect()
}

/// The entries of a tar that is known to be whole.
pub fn entries(mut tar: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut records = Vec::new();
    while tar[..512] != [0; 512] {
        let (header, rest) = tar.split_at(512);
        let mut size = octal(&header[124..136]);
        let kind = header[156];
        if kind != b'x'
            && let Some(value) = record(&records, b"size")
        {
            size = String::from_utf8(value).unwrap().parse().unwrap();
        }
        let (data, rest) = rest.split_at(size.next_multiple_of(512));
        tar = rest;
        if kind == b'x' {
            records = split(&data[..size]);
            continue;
        }
        found.push(entry(header, &std::mem::take(&mut records), data));
    }
    assert_eq!(tar, [0; 1024], "the end of the archive");
    found
}

type Record = (Vec<u8>, Vec<u8>);

fn entry(header: &[u8], records: &[Record], data: &[u8]) -> Entry {
    let named = [b"GNU.sparse.name".as_slice(), b"path"];
    let mut name = named
        .iter()
        .find_map(|key| record(records, key))
        .unwrap_or_else(|| until_nul(&header[..100]));
    if name.ends_with(b"/") {
        name.pop();
    }
    if name == b"." {
        name.clear();
    }
    let mut about = [&header[100..124], &header[136..148], &header[329..345]].concat();
    for (key, value) in records {
        if !["path", "linkpath", "size", "hdrcharset", "GNU.sparse.name"]
            .iter()
            .any(|known| known.as_bytes() == key)
        {
            about.extend([key.as_slice(), b"=", value, b"\n"].concat());
        }
    }
    Entry {
        name,
        kind: header[156],
        link: record(records, b"linkpath").unwrap_or_else(|| until_nul(&header[157..257])),
        about,
        data: data.to_vec(),
    }
}

fn record(records: &[Record], key: &[u8]) -> Option<Vec<u8>> {
    let found = records.iter().find(|(name, _)| name == key);
    found.map(|(_, value)| value.clone())
}

fn split(mut body: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let space = body.iter().position(|&byte| byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&body[..space])
            .unwrap()
            .parse()
            .unwrap();
        let record = &body[space + 1..length - 1];
        let equals = record.iter().position(|&byte| byte == b'=').unwrap();
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        body = &body[length..];
    }
    records
}

/// A root filesystem: what a name is, and which inode.
#[derive(Debug, Clone, Default)]
pub struct Rootfs {
    names: BTreeMap<Vec<u8>, (Entry, usize)>,
    inodes: usize,
}

impl Rootfs {
    /// What `layers` make, the lowest first.
    pub fn of<'l>(layers: impl IntoIterator<Item = &'l [u8]>) -> Rootfs {
        let mut rootfs = Rootfs::default();
        for layer in layers {
            rootfs.apply(layer);
        }
        rootfs
    }

    fn apply(&mut self, tar: &[u8]) {
        let mut of_this_layer = BTreeSet::new();
        for entry in entries(tar) {
            let name = entry.name.clone();
            let slash = name.iter().rposition(|&byte| byte == b'/');
            let (dir, last) = match slash {
                Some(at) => (&name[..at], &name[at + 1..]),
                None => (&b""[..], &name[..]),
            };
            let parent = self.names.get(dir);
            assert!(name.is_empty() || parent.is_some_and(|(dir, _)| dir.kind == b'5'));
            if last == b".wh..wh..opq" {
                let dir = dir.to_vec();
                self.names
                    .retain(|path, _| !is_inside(path, &dir) || of_this_layer.contains(path));
                continue;
            }
            if let Some(hidden) = last.strip_prefix(b".wh.") {
                let hidden = match slash {
                    Some(_) => [dir, b"/", hidden].concat(),
                    None => hidden.to_vec(),
                };
                self.remove(&hidden);
                continue;
            }
            let both_dirs =
                entry.kind == b'5' && self.names.get(&name).is_some_and(|(e, _)| e.kind == b'5');
            if !both_dirs {
                self.remove(&name);
            }
            of_this_layer.insert(name.clone());
            if entry.kind == b'1' {
                // A layer has to stand alone: unpackers link inside of it.
                assert!(
                    of_this_layer.contains(&entry.link),
                    "a link out of the layer"
                );
                let target = self.names[&entry.link].clone();
                self.names.insert(name, target);
                continue;
            }
            self.inodes += 1;
            self.names.insert(name, (entry, self.inodes));
        }
    }

    fn remove(&mut self, name: &[u8]) {
        self.names
            .retain(|path, _| path != name && !is_inside(path, name));
    }

    /// Everything a container could see.
    pub fn seen(&self) -> Vec<Seen> {
        let mut first: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        let mut seen = Vec::new();
        for (name, (entry, inode)) in &self.names {
            let inode = first.entry(*inode).or_insert_with(|| name.clone());
            seen.push(Seen {
                inode: inode.clone(),
                entry: Entry {
                    name: name.clone(),
                    ..entry.clone()
                },
            });
        }
        seen
    }
}

/// What a name is, and the first name of its inode.
#[derive(Debug, PartialEq)]
pub struct Seen {
    entry: Entry,
    inode: Vec<u8>,
}

fn is_inside(path: &[u8], dir: &[u8]) -> bool {
    match dir {
        b"" => !path.is_empty(),
        _ => path.starts_with(dir) && path.get(dir.len()) == Some(&b'/'),
    }
}
