//! Traces, at the end of a server.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cowcloop_engine::format::cowfile::head::VERSION_CLOSED;
use cowcloop_engine::format::cowfile::read_head;
use cowcloop_engine::storage::FileStorage;
use cowcloop_server::{Event, Events, Fua, Server, ServerOptions};

/// Notes each warning, and whether the cowfile was closed when it came.
struct Warned {
    cow: PathBuf,
    warnings: Mutex<Vec<(String, bool)>>,
}

impl Events for Warned {
    fn tell(&self, event: Event<'_>) {
        if let Event::Warning { text } = event {
            let (head, _) = read_head(&FileStorage::open(&self.cow).unwrap()).unwrap();
            let closed = head.version == VERSION_CLOSED;
            self.warnings.lock().unwrap().push((text.into(), closed));
        }
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_told_when_the_cowfile_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let [image, cow, trace] = ["image", "a.cow", "trace"].map(|name| folder.path().join(name));
    std::fs::write(&image, vec![7; 1 << 20]).unwrap();
    let mut options = ServerOptions { image, cows: vec![cow.clone()], ..Default::default() };
    options.device.create = true;
    options.trace.record = Some(trace.clone());
    let warned = Arc::new(Warned { cow, warnings: Mutex::default() });
    let server = Arc::new(Server::open(options, warned.clone()).unwrap());
    server.start().unwrap();
    let client = server.connect(b"", false).unwrap();
    client.read(&mut [0; 512], 0).unwrap();
    client.write(&[1; 512], 0, Fua(false)).unwrap();
    // Another program uses the name meanwhile.
    std::fs::write(&trace, "mine\n").unwrap();
    drop(client);
    server.close().unwrap();
    assert_eq!(std::fs::read_to_string(&trace).unwrap(), "mine\n");
    let warnings = warned.warnings.lock().unwrap();
    let [(text, closed)] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(text.contains("exists and is no trace"), "{text}");
    assert!(closed);
}
