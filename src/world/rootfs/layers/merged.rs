//! The layers of a world as one: what each of them says of a name, put
//! together in one pass over all of them.

use super::compress::Decompressor;
use super::node::{Node, Nodes};
use crate::Result;
use crate::world::rootfs::entry::{EntryPath, Kind};
use crate::world::rootfs::reader::{Form, Reader};
use crate::world::rootfs::source::Forward;
use std::io::Read;

/// Reads several layers at once, the lowest first.
pub(super) struct Merged<R: Read> {
    layers: Vec<Layer<R>>,
    /// Directories in which some layers do not count, the innermost last.
    floors: Vec<Floor>,
    /// The layer that the node just given is in.
    from: usize,
}

struct Layer<R: Read> {
    nodes: Nodes<Forward<Decompressor<R>>>,
    head: Option<Node>,
    /// The head was used: it has to be read on. Not earlier, because its data
    /// may be wanted first.
    used: bool,
}

/// Below `path`, only the layers from number `layer` on count.
struct Floor {
    path: EntryPath,
    layer: usize,
}

impl<R: Read> Merged<R> {
    /// Of each layer, no more than `budget` bytes are decompressed.
    pub fn new(layers: impl IntoIterator<Item = R>, budget: u64) -> Result<Merged<R>> {
        let open = |(number, layer): (usize, R)| {
            let form = match number {
                0 => Form::Whole,
                _ => Form::Delta,
            };
            let name = format!("rootfs layer {}", number + 1);
            let stream = Decompressor::new(layer, budget)?;
            Ok(Layer {
                nodes: Nodes::new(Reader::stream(stream, name, form)),
                head: None,
                used: true,
            })
        };
        Ok(Merged {
            layers: layers
                .into_iter()
                .enumerate()
                .map(open)
                .collect::<Result<_>>()?,
            floors: Vec::new(),
            from: 0,
        })
    }

    /// The next node of what the layers are together.
    pub fn next(&mut self) -> Result<Option<Node>> {
        loop {
            for layer in self.layers.iter_mut().filter(|layer| layer.used) {
                layer.head = layer.nodes.next()?;
                layer.used = false;
            }
            let heads = self.layers.iter().filter_map(|layer| layer.head.as_ref());
            let paths = heads.map(|node| &node.entry.path);
            let Some(path) = paths.min_by(|a, b| a.order(b)).cloned() else {
                return Ok(None);
            };
            match self.resolve(&path) {
                Some(node) if node.entry.kind != Kind::Removed => return Ok(Some(node)),
                _ => {}
            }
        }
    }

    /// The next bytes of the data of the node just given.
    pub fn read_data(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.layers[self.from].nodes.read_data(buffer)
    }

    /// Size of all layers, uncompressed, once their end was reached.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.nodes.size()).sum()
    }

    /// What the layers together say of `path`, which all of them were read up to.
    fn resolve(&mut self, path: &EntryPath) -> Option<Node> {
        self.floors.retain(|floor| path.is_inside(&floor.path));
        let floor = self.floors.last().map_or(0, |floor| floor.layer);
        let mut found: Option<Node> = None;
        let mut settled = None;
        for (number, layer) in self.layers.iter_mut().enumerate().rev() {
            let Some(node) = layer.head.take_if(|node| node.entry.path == *path) else {
                continue;
            };
            layer.used = true;
            if number < floor || settled.is_some() {
                continue;
            }
            // From here down, nothing shows through.
            if !node.is_dir() || node.opaque {
                settled = Some(number);
            }
            match &mut found {
                Some(top) => top.opaque |= node.opaque,
                None => {
                    self.from = number;
                    found = Some(node);
                }
            }
        }
        if let Some(layer) = settled {
            let path = path.clone();
            self.floors.push(Floor { path, layer });
        }
        found
    }
}
