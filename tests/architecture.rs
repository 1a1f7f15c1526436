//! The shape of the source itself: which way dependencies point, where
//! `unsafe` may be, how long a file may get, and that each says what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom: a module may use those on its own level and below.
const LEVELS: [&[&str]; 7] = [
    &["cli", "shim"],
    &["archive", "containerd", "registry"],
    &["world"],
    &["lazy"],
    &["memory"],
    &["cgroup", "criu", "hooks", "runtime", "store"],
    &["digest", "error", "json", "sys"],
];
const MOST_LINES: usize = 500;
/// One place of system calls: a file, and its folder.
const MAY_BE_UNSAFE: [&str; 2] = ["sys.rs", "sys"];

struct Source {
    /// Relative to `src`.
    path: PathBuf,
    text: String,
}

impl Source {
    /// The module right below the crate's root that the file belongs to.
    fn top_module(&self) -> String {
        let first = self.path.iter().next().expect("a file in src");
        Path::new(first)
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
    }

    /// How many `super::` lead from the file's module to the crate's root.
    fn depth(&self) -> usize {
        let stem = self.path.file_stem().expect("a name");
        let folders = self.path.components().count() - 1;
        folders + usize::from(stem != "mod" && stem != "main" && stem != "lib")
    }

    /// Its code without comments and without what strings say.
    fn code(&self) -> String {
        self.text.lines().map(|line| code_of(line) + "\n").collect()
    }
}

/// Good enough for our own code: no block comments, no strings over several lines.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let mut in_string = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\\' if in_string => {
                characters.next();
            }
            // The character '"' opens no string.
            '\'' if !in_string && characters.peek() == Some(&'"') => {
                characters.nth(1);
            }
            '"' => in_string = !in_string,
            '/' if !in_string && characters.peek() == Some(&'/') => break,
            c if !in_string => code.push(c),
            _ => {}
        }
    }
    code
}

fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut todo = vec![src.clone()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("list src") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("read a source");
                let path = path.strip_prefix(&src).expect("below src").to_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 20, "the sources are there");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&module))
}

/// The modules below the crate's root that a piece of code names.
fn modules_named(source: &Source) -> BTreeSet<String> {
    let code = source.code();
    let up = "super::".repeat(source.depth());
    let mut roots = vec!["crate::", "worldshim::"];
    if !up.is_empty() {
        roots.push(&up);
    }
    let mut named = BTreeSet::new();
    for root in roots {
        for (at, _) in code.match_indices(root) {
            let part_of_a_longer_name =
                code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if !part_of_a_longer_name {
                named.extend(first_names(&code[at + root.len()..]));
            }
        }
    }
    named
}

/// `a::b` names a; `{a::b, c::{d, e}}` names a and c.
fn first_names(path: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut names = vec![word(group)];
    let mut depth = 1;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(word(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// Which module uses which, and a file as a witness.
fn uses() -> BTreeMap<(String, String), PathBuf> {
    let mut uses = BTreeMap::new();
    for source in sources() {
        let from = source.top_module();
        for to in modules_named(&source) {
            if level(&from).is_some() && level(&to).is_some() && from != to {
                uses.insert((from.clone(), to), source.path.clone());
            }
        }
    }
    uses
}

#[test]
fn dependencies_point_down() {
    let upward: Vec<_> = uses()
        .into_iter()
        .filter(|((from, to), _)| level(from) > level(to))
        .map(|((from, to), file)| format!("{from} uses {to}: src/{}", file.display()))
        .collect();
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn neighbours_do_not_use_each_other_both_ways() {
    let uses = uses();
    let both: Vec<_> = uses
        .keys()
        .filter(|(from, to)| from < to && uses.contains_key(&(to.clone(), from.clone())))
        .collect();
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn every_module_has_its_level() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"))
        .expect("read lib.rs");
    for line in lib.lines() {
        if let Some(name) = line.strip_prefix("pub mod ") {
            let name = name.trim_end_matches(';');
            assert!(level(name).is_some(), "LEVELS does not name {name}");
        }
    }
}

#[test]
fn unsafe_stays_in_one_place() {
    for source in sources() {
        if MAY_BE_UNSAFE
            .iter()
            .any(|place| source.path.starts_with(place))
        {
            continue;
        }
        let code = source.code();
        let found = code
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word == "unsafe");
        assert!(!found, "unsafe in src/{}", source.path.display());
    }
}

#[test]
fn files_stay_short() {
    let long: Vec<_> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), source.path.clone()))
        .filter(|(lines, _)| *lines > MOST_LINES)
        .collect();
    assert!(long.is_empty(), "longer than {MOST_LINES} lines: {long:?}");
}

#[test]
fn every_module_says_what_it_is() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "no //! at the head of {silent:?}");
}

#[test]
fn the_checks_themselves_see() {
    let source = |path: &str, text: &str| Source {
        path: PathBuf::from(path),
        text: text.to_owned(),
    };
    let named = |path: &str, text: &str| -> Vec<String> {
        modules_named(&source(path, text)).into_iter().collect()
    };
    assert_eq!(named("world/x.rs", "use crate::shim::y;"), ["shim"]);
    assert_eq!(
        named("world/x.rs", "use crate::{cli::{a, b}, error::Error};"),
        ["cli", "error"]
    );
    assert_eq!(named("world/x.rs", "use super::super::cli;"), ["cli"]);
    assert_eq!(named("world/mod.rs", "super::cli::run()"), ["cli"]);
    assert_eq!(named("shim/main.rs", "worldshim::shim::run()"), ["shim"]);
    assert_eq!(
        named("world/x.rs", "// crate::cli\n\"crate::cli\""),
        [""; 0]
    );
    assert_eq!(code_of(r#"a("\"x // y", '"') // z"#), "a(, ) ");
}
