use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};

use super::*;
use crate::storage::FileIdentity;
use crate::ErrorKind;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

/// The unfinished files in a directory that this process has open, by names that work even
/// where the files have none.
fn written_in(directory: &Path) -> Vec<PathBuf> {
    let directory = directory.canonicalize().unwrap();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let unfinished = |to: &Path| {
        let name = to.file_name().unwrap_or_default().to_string_lossy();
        name.ends_with(".part") || name.ends_with(" (deleted)")
    };
    open.filter(|path| {
        std::fs::read_link(path).is_ok_and(|to| to.starts_with(&directory) && unfinished(&to))
    })
    .collect()
}

fn fill(output: &mut Output, data: &[u8]) {
    output.append(data, &|| Ok(())).unwrap();
}

#[test]
fn a_file_appears_when_it_is_whole() {
    let directory = directory();
    let path = directory.path().join("out");
    let mut output = open(&path);
    fill(&mut output, b"first");
    assert!(!path.exists());
    output.finish(&|| Ok(())).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"first");

    let mut output = open(&path);
    fill(&mut output, b"second");
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    assert_eq!(written_in(directory.path()).len(), 1);
    drop(output);
    assert_eq!(std::fs::read(&path).unwrap(), b"first");

    // Stopped while the medium took it.
    let mut output = open(&path);
    fill(&mut output, b"third");
    let stop = || Err(crate::Error::new(ErrorKind::Cancelled, "test", "stop"));
    assert_eq!(output.finish(&stop).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    assert_eq!(names(directory.path()), ["out"]);
}

#[test]
fn a_replaced_file_keeps_its_mode_and_a_new_one_has_the_usual() {
    let directory = directory();
    let old = write(&directory, "old", b"old");
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o640)).unwrap();
    let output = open(&old);
    let [partial] = &written_in(directory.path())[..] else { panic!("one file is open") };
    assert_eq!(mode(partial), 0o600, "private while it is written");
    output.finish(&|| Ok(())).unwrap();
    assert_eq!(mode(&old), 0o640);

    let usual = write(&directory, "usual", b"");
    let new = directory.path().join("new");
    open(&new).finish(&|| Ok(())).unwrap();
    assert_eq!(mode(&new), mode(&usual));
}

#[test]
fn a_cowfile_in_use_keeps_its_place() {
    let directory = directory();
    let open = |path: &Path| Output::open(path, &[], Replace::Anything).unwrap();
    let changes = crate::format::cowfile::head::MAGIC.to_le_bytes();
    let path = write(&directory, "c.cow", &changes);
    let used = || crate::storage::FileStorage::open(&path).unwrap();
    // As by a server that reads it.
    let user = used();
    assert!(user.try_lock(false).unwrap());
    let error = Output::open(&path, &[], Replace::Plain).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    drop(user);
    // No other process begins to use a file that is about to be replaced.
    let output = open(&path);
    assert!(!used().try_lock(false).unwrap());
    drop(output);
    assert!(used().try_lock(true).unwrap());

    // One that is made, and used, after the output was begun.
    std::fs::remove_file(&path).unwrap();
    let mut output = open(&path);
    fill(&mut output, b"an image");
    std::fs::write(&path, changes).unwrap();
    let user = used();
    assert!(user.try_lock(true).unwrap());
    assert_eq!(output.finish(&|| Ok(())).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(std::fs::read(&path).unwrap(), changes);
    assert_eq!(names(directory.path()), ["c.cow"]);

    // The lock of another file is not ours to mind: flock(1) keeps two jobs apart by it.
    std::fs::write(&path, b"an image").unwrap();
    let mut output = open(&path);
    fill(&mut output, b"another");
    output.finish(&|| Ok(())).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"another");
}

#[test]
fn an_input_is_refused_by_any_name() {
    let directory = directory();
    let input = write(&directory, "input", b"data");
    let hard = directory.path().join("hard");
    let soft = directory.path().join("soft");
    std::fs::hard_link(&input, &hard).unwrap();
    symlink("input", &soft).unwrap();
    let identity = FileIdentity::of_path(&input).unwrap();
    for path in [&input, &hard, &soft] {
        let error = Output::open(path, &[identity], Replace::Plain).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("is also an input"), "{error}");
    }
    assert_eq!(names(directory.path()), ["hard", "input", "soft"]);
    assert!(Output::open(&directory.path().join("other"), &[identity], Replace::Plain).is_ok());
}

#[test]
fn a_symbolic_link_stays_and_its_file_is_replaced() {
    let directory = directory();
    let file = write(&directory, "file", b"old");
    let link = directory.path().join("link");
    symlink("file", &link).unwrap();
    let mut output = open(&link);
    fill(&mut output, b"new");
    output.finish(&|| Ok(())).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read(file).unwrap(), b"new");

    let dangling = directory.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    assert!(line(Output::open(&dangling, &[], Replace::Plain)).contains("symbolic link to nothing"));
}

#[test]
fn places_that_cannot_be_written_are_told() {
    let directory = directory();
    let message = line(Output::open(directory.path(), &[], Replace::Plain));
    assert!(message.ends_with("is a directory: name a file in it"), "{message}");
    let message = line(Output::open(&directory.path().join("no/such/out"), &[], Replace::Plain));
    assert!(message.ends_with("cannot create a file beside it: No such file or directory"));
    let file = write(&directory, "file", b"");
    assert!(line(Output::open(&file.join("out"), &[], Replace::Plain)).ends_with("Not a directory"));
}

#[test]
fn a_stream_is_written_in_order_only() {
    let directory = directory();
    let (mut output, reader) = pipe_out(&directory);
    assert!(output.is_pipe());
    assert!(output.write_at(b"x", 0).is_err());
    fill(&mut output, b"one ");
    fill(&mut output, b"two");
    output.append_zeros(700_000, &|| Ok(())).unwrap();
    output.finish(&|| Ok(())).unwrap();
    let data = reader.join().unwrap();
    assert_eq!(&data[..7], b"one two");
    assert!(data.len() == 700_007 && data[7..].iter().all(|byte| *byte == 0));
}

#[test]
fn a_pipe_that_no_reader_empties_can_be_given_up() {
    use std::os::fd::AsRawFd;
    let stop = || Err(crate::Error::new(ErrorKind::Cancelled, "test", "stop"));
    // A FIFO without a reader.
    let directory = directory();
    let path = make_fifo(&directory);
    let error = open(&path).append(b"data", &stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    // A pipe whose reader sleeps; the writer's other users keep a pipe that blocks.
    let (reader, writer) = std::io::pipe().unwrap();
    let path = format!("/dev/fd/{}", writer.as_raw_fd());
    let error = open(Path::new(&path)).append(&[0; 2 << 20], &stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
    drop(reader);
}

#[test]
fn cowfiles_and_images_are_replaced_only_by_a_caller_that_says_so() {
    use flate2::{write::GzEncoder, Compression};
    let directory = directory();
    let cowfile = crate::format::cowfile::head::MAGIC.to_le_bytes().to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&cowfile).unwrap();
    let mut footer = vec![0; 4096];
    footer.extend(b"#!/bin/sh\n#V4.0 Format\n");
    footer.resize(4096 + 136, 0);
    footer[4096 + 128 + 2] = 2;
    for (data, kind) in [
        (cowfile, "cowfile"),
        (crate::format::cowfile::head::MAGIC.to_be_bytes().to_vec(), "cowfile"),
        (gzip.finish().unwrap(), "cowfile"),
        // Cut short, of a version that is not read, and one that cannot be.
        (b"#!/bin/sh\n#V2.0 Format\n".to_vec(), "compressed image"),
        (b"#!/bin/sh\n#V0.68 Form\n".to_vec(), "compressed image"),
        (footer, "compressed image"),
    ] {
        let path = write(&directory, "kept", &data);
        let image = kind == "compressed image";
        for (replace, refused) in
            [(Replace::Plain, true), (Replace::Images, !image), (Replace::Anything, false)]
        {
            match Output::open(&path, &[], replace) {
                Ok(_) => assert!(!refused, "{data:?} {replace:?}"),
                Err(error) => {
                    assert!(refused, "{error}");
                    assert_eq!(error.kind(), ErrorKind::Exists);
                    assert!(error.to_string().contains(&format!("is a {kind}: name")), "{error}");
                }
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), data);
    }
    for plain in [&b""[..], b"\x1f\x8b", b"\x1f\x8b not gzip at all", b"#!/bin/sh\nexec true\n"] {
        let path = write(&directory, "plain", plain);
        Output::open(&path, &[], Replace::Plain).unwrap();
    }
}

#[test]
fn what_is_made_there_meanwhile_is_kept_as_well() {
    let directory = directory();
    let path = directory.path().join("k.cow");
    let mut output = Output::open(&path, &[], Replace::Plain).unwrap();
    fill(&mut output, b"an image");
    let cowfile = crate::format::cowfile::head::MAGIC.to_le_bytes();
    std::fs::write(&path, cowfile).unwrap();
    assert_eq!(output.finish(&|| Ok(())).unwrap_err().kind(), ErrorKind::Exists);
    assert_eq!(std::fs::read(&path).unwrap(), cowfile);
    assert_eq!(names(directory.path()), ["k.cow"]);
}
