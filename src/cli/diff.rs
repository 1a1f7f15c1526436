//! `world diff`: what differs between two worlds.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::output::{self, Format};
use super::places::StoreArgs;
use super::progress;
use crate::error::Result;
use crate::memory::PAGE_SIZE;
use crate::store::Reference;
use crate::world::diff::{
    self, Change, Diff, EnvironmentDiff, FileChange, FilesDiff, Listing, MemoryDiff,
    OpenFileChange, OpenFileView, ProcessesDiff, RegionChange, Sections, WorldView,
};

/// The status of `--exit-code` for worlds that differ, as git and diff have it.
const THEY_DIFFER: u8 = 1;

/// `world diff`'s arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The world to compare with
    before: Reference,

    /// The world that is compared
    after: Reference,

    /// Compare the environment [default: everything]
    #[arg(long)]
    env: bool,

    /// Compare files
    #[arg(long)]
    files: bool,

    /// Compare processes, open files and sockets
    #[arg(long)]
    processes: bool,

    /// Compare memory
    #[arg(long)]
    memory: bool,

    /// Exit with 1 if there are differences
    #[arg(long)]
    exit_code: bool,

    #[command(flatten)]
    store: StoreArgs,
}

impl Args {
    fn sections(&self) -> Sections {
        let all = !(self.env || self.files || self.processes || self.memory);
        Sections {
            environment: all || self.env,
            files: all || self.files,
            processes: all || self.processes,
            memory: all || self.memory,
        }
    }
}

pub(super) fn run(args: &Args, format: Format) -> Result<ExitCode> {
    let store = args.store.open_existing()?;
    let lease = store.lease()?;
    let before = store.resolve_held(&args.before, &lease)?;
    let after = store.resolve_held(&args.after, &lease)?;
    let diff = diff::diff(&lease, &before, &after, args.sections())?;
    output::print(format, &diff, words)?;
    Ok(match args.exit_code && diff.differs {
        true => ExitCode::from(THEY_DIFFER),
        false => ExitCode::SUCCESS,
    })
}

fn words(diff: &Diff) -> String {
    let mut text = String::new();
    if !diff.differs {
        return text;
    }
    text += &header("---", &diff.before);
    text += &header("+++", &diff.after);
    let sections = [
        diff.environment.as_ref().map(environment),
        diff.files.as_ref().map(files),
        diff.processes.as_ref().map(processes),
        diff.processes.as_ref().map(open_files),
        diff.memory.as_ref().map(memory),
    ];
    for section in sections.into_iter().flatten().filter(|it| !it.is_empty()) {
        text.push('\n');
        text += &section;
    }
    text
}

fn header(mark: &str, world: &WorldView) -> String {
    let digest = &world.digest.to_string()[7..19];
    let created = world.created.as_deref().unwrap_or("-");
    let created: String = created.chars().take(19).collect();
    let image = world.image.as_deref().unwrap_or("no image");
    format!(
        "{mark} {digest}  {}  {created}  {}\n",
        shown(world.container.as_bytes()),
        shown(image.as_bytes())
    )
}

/// A section: its title with the counts, then its rows. Empty without differences.
fn section<T, const N: usize>(
    title: &str,
    counted: &Listing<T>,
    more: &str,
    rows: &[[String; N]],
) -> String {
    if !counted.differs() {
        return String::new();
    }
    let counts = [
        (counted.added, "added"),
        (counted.changed, "changed"),
        (counted.removed, "removed"),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    let mut text = format!("{title}: {}{more}\n", counts.join(", "));
    for line in output::columns(rows).lines() {
        let _ = writeln!(text, "  {line}");
    }
    if counted.omitted > 0 {
        let _ = writeln!(text, "  and {} more", counted.omitted);
    }
    text
}

fn letter(change: Change) -> char {
    match change {
        Change::Added => 'A',
        Change::Changed => 'C',
        Change::Removed => 'D',
    }
}

fn environment(diff: &EnvironmentDiff) -> String {
    let variables = diff.variables.list.iter().map(|variable| {
        let value =
            |value: &Option<crate::world::raw_text::RawText>| match (value, variable.redacted) {
                (_, true) => "(redacted)".to_owned(),
                (Some(value), _) => shown(&value.0),
                (None, _) => String::new(),
            };
        let name = shown(&variable.name.0);
        let (before, after) = (value(&variable.before), value(&variable.after));
        [
            format!("{} {name}", letter(variable.change)),
            pair(variable.change, before, after),
        ]
    });
    let settings = diff.settings.list.iter().map(|setting| {
        let value = |value: &Option<serde_json::Value>| match value {
            Some(serde_json::Value::String(text)) => shown(text.as_bytes()),
            Some(value) => shown(value.to_string().as_bytes()),
            None => String::new(),
        };
        let (before, after) = (value(&setting.before), value(&setting.after));
        [
            format!(
                "{} {}",
                letter(setting.change),
                shown(setting.name.as_bytes())
            ),
            pair(setting.change, before, after),
        ]
    });
    let variables = section(
        "environment",
        &diff.variables,
        "",
        &variables.collect::<Vec<_>>(),
    );
    variables
        + &section(
            "settings",
            &diff.settings,
            "",
            &settings.collect::<Vec<_>>(),
        )
}

/// One value, or the first and the second.
fn pair(change: Change, before: String, after: String) -> String {
    match change {
        Change::Added => after,
        Change::Removed => before,
        Change::Changed => format!("{before} -> {after}"),
    }
}

fn files(diff: &FilesDiff) -> String {
    let list = diff.list.list.iter().map(|file| {
        [
            format!("{} {}", letter(file.change), shown(&file.path.0)),
            aspects(file),
        ]
    });
    let more = match diff.same_image {
        Some(false) => " (on different images, which are not compared)",
        _ => "",
    };
    section("files", &diff.list, more, &list.collect::<Vec<_>>())
}

fn aspects(file: &FileChange) -> String {
    let (Some(before), Some(after)) = (&file.before, &file.after) else {
        let only = file.before.iter().chain(&file.after).next();
        return only.map_or_else(String::new, |view| {
            let size = view.size.map(progress::size);
            [Some(view.kind.to_owned()), Some(view.mode.clone()), size]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" ")
        });
    };
    let said = file.what.iter().map(|aspect| match *aspect {
        "type" => format!("type {} -> {}", before.kind, after.kind),
        "mode" => format!("mode {} -> {}", before.mode, after.mode),
        "owner" => format!(
            "owner {}:{} -> {}:{}",
            before.uid, before.gid, after.uid, after.gid
        ),
        "content" if before.size != after.size => {
            let size = |size: Option<u64>| size.map(progress::size).unwrap_or_default();
            format!("content {} -> {}", size(before.size), size(after.size))
        }
        other => other.to_owned(),
    });
    said.collect::<Vec<_>>().join(", ")
}

fn processes(diff: &ProcessesDiff) -> String {
    let list = diff.list.list.iter().map(|process| {
        let views = process.after.as_ref().or(process.before.as_ref());
        let command = views.map(|view| shown(&view.command.0)).unwrap_or_default();
        [
            format!("{} {}", letter(process.change), process.pid),
            command,
            process.what.join(", "),
        ]
    });
    section("processes", &diff.list, "", &list.collect::<Vec<_>>())
}

/// Those of processes that came or went are told as one.
fn open_files(diff: &ProcessesDiff) -> String {
    let came_or_went = |pid: u32| {
        let processes = diff.list.list.iter();
        let mut others = processes.filter(|process| process.change != Change::Changed);
        others.any(|process| process.pid == pid)
    };
    let mut rows = Vec::new();
    let mut last = None;
    for open in &diff.open_files.list {
        if !came_or_went(open.pid) {
            rows.push(open_file(open));
        } else if last != Some(open.pid) {
            let all = diff.open_files.list.iter();
            let count = all.filter(|other| other.pid == open.pid).count();
            rows.push([
                format!("{} {}", letter(open.change), open.pid),
                format!("{count} of the process"),
            ]);
        }
        last = Some(open.pid);
    }
    section("open files", &diff.open_files, "", &rows)
}

fn open_file(open: &OpenFileChange) -> [String; 2] {
    let view = |view: &Option<OpenFileView>| view.as_ref().map(open_view).unwrap_or_default();
    let (before, after) = (view(&open.before), view(&open.after));
    let text = match (open.change, before == after) {
        (Change::Changed, true) => format!("{after}: {}", open.what.join(", ")),
        (change, _) => pair(change, before, after),
    };
    [
        format!("{} {}/{}", letter(open.change), open.pid, open.fd),
        text,
    ]
}

fn open_view(view: &OpenFileView) -> String {
    let mut text = view.kind.to_owned();
    if !view.name.0.is_empty() {
        let _ = write!(text, " {}", shown(&view.name.0));
    }
    if let Some(state) = view.state {
        let _ = write!(text, " {state}");
    }
    if let Some(peer) = &view.peer {
        let _ = write!(text, " ({peer})");
    }
    if let Some(position) = view.position {
        let _ = write!(text, " at {position}");
    }
    if let Some(count) = view.count {
        let _ = write!(text, " {count}");
    }
    text
}

fn memory(diff: &MemoryDiff) -> String {
    let list = diff.list.list.iter().map(|region| {
        let view = region.after.as_ref().or(region.before.as_ref());
        let (place, name) = view.map_or_else(Default::default, |view| {
            let place = format!(
                "{}-{} {}",
                &view.start[2..],
                &view.end[2..],
                view.protection
            );
            (place, shown(&view.name.0))
        });
        [
            format!("{} {}", letter(region.change), region.pid),
            place,
            name,
            pages(region),
        ]
    });
    let more = format!(
        "; {} differ ({}) of {} before and {} after",
        count_of(diff.pages_differing),
        progress::size(diff.pages_differing.saturating_mul(PAGE_SIZE as u64)),
        diff.pages_before,
        diff.pages_after,
    );
    section("memory", &diff.list, &more, &list.collect::<Vec<_>>())
}

fn pages(region: &RegionChange) -> String {
    let other: Vec<_> = region
        .what
        .iter()
        .filter(|what| **what != "pages")
        .copied()
        .collect();
    let mut text = match region.change {
        Change::Added => count_of(region.pages_after),
        Change::Removed => count_of(region.pages_before),
        Change::Changed => format!("{} differ", count_of(region.pages_differing)),
    };
    if !other.is_empty() {
        let _ = write!(text, "; {}", other.join(", "));
    }
    text
}

fn count_of(pages: u64) -> String {
    match pages {
        1 => "1 page".to_owned(),
        pages => format!("{pages} pages"),
    }
}

/// Text of a world's for a terminal: nothing in it is taken for a command.
fn shown(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return bytes.escape_ascii().to_string();
    };
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_a_world_gives_a_terminal_no_commands() {
        assert_eq!(shown("it's/grün".as_bytes()), "it's/grün");
        assert_eq!(shown(b"a\x1b[2J\n"), "a\\u{1b}[2J\\n");
        assert_eq!(shown(b"\xff\x1b"), "\\xff\\x1b");
        assert_eq!(shown("a\u{202e}b".as_bytes()), "a\\u{202e}b");
    }
}
