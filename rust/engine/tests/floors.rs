//! The engine is a house of floors: a file may know what lies below it, and nothing above.

use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first; rooms on one floor know nothing of each other.
const FLOORS: [&[&str]; 8] = [
    &["error", "remedy", "progress", "layer", "memory", "buffers"],
    &["storage", "codec"],
    &["format"],
    &["read"],
    &["image", "overlay"],
    &["device"],
    &["jobs"],
    &["lib"],
];

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // A test may look down on what it tests from any height.
        let is_test = path.file_stem().is_some_and(|name| name == "tests");
        if path.is_dir() && !is_test {
            found.extend(files(&path));
        } else if !is_test && path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

/// The rooms that a file names, but for its comments and the tests at its end.
fn named(text: &str) -> Vec<String> {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = product.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut rooms = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let names = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap(),
            None => rest.split([':', ';', '(', ' ']).next().unwrap(),
        };
        rooms.extend(
            names.split(',').map(|name| name.trim().split(':').next().unwrap().to_string()),
        );
    }
    rooms.retain(|room| floor(room).is_some());
    rooms
}

#[test]
fn nothing_knows_what_lies_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in files(&source) {
        let inside = path.strip_prefix(&source).unwrap();
        let first = Path::new(inside.iter().next().unwrap());
        let own = first.file_stem().unwrap().to_str().unwrap();
        let height = floor(own).unwrap_or_else(|| panic!("{own} is on no floor"));
        for room in named(&fs::read_to_string(&path).unwrap()) {
            // The ground floor is one room.
            let below = floor(&room).unwrap() < height || room == own || height == 0;
            if !below {
                wrong.push(format!("{} knows {room}", inside.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
