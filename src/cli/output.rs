//! Printing data: words for people, one JSON document for programs.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::digest::Digest;
use crate::error::{Error, IoContext, Result};

/// How to print what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Words for people.
    Human,
    /// One JSON document.
    Json,
}

/// Prints `data` as JSON, or what `human` makes of it, to stdout.
pub(super) fn print<T: Serialize>(
    format: Format,
    data: &T,
    human: impl FnOnce(&T) -> String,
) -> Result<()> {
    let text = match format {
        Format::Human => human(data),
        Format::Json => {
            let mut text = serde_json::to_string_pretty(data).map_err(|error| {
                Error::caused_by(crate::ErrorKind::Internal, "encode as JSON", error)
            })?;
            text.push('\n');
            text
        }
    };
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        // The reader (`head`) has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context(|| "write to stdout"),
    }
}

/// Rows with their cells one below the other, two spaces apart.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            line += &format!("{cell:width$}  ");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A line about the world that had a name before; nothing where there was none.
pub(super) fn displaced(world: Option<Digest>) -> String {
    match world {
        Some(world) => format!("before  {world} had this name; it stays in the store without it\n"),
        None => String::new(),
    }
}
