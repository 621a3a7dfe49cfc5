//! A server over an image in a folder of its own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cowcloop_engine::device::DeviceOptions;
use cowcloop_server::{Connection, Event, Events, Server, ServerOptions};
use serde_json::Value;
use tempfile::TempDir;

/// Bytes of the image.
pub const SIZE: u64 = 1 << 20;
/// A whole number of blocks of whatever kind.
pub const BLOCK: u64 = 64 << 10;
/// What every byte of the image is.
pub const PATTERN: u8 = 0xa5;

/// Keeps the events, as lines of JSON.
#[derive(Default)]
pub struct Told(Mutex<Vec<Value>>);

impl Told {
    /// The texts of the events of one name.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let told = self.0.lock().unwrap();
        let named = told.iter().filter(|event| event["event"] == name);
        named.map(|event| event["text"].as_str().unwrap_or_default().to_string()).collect()
    }
}

impl Events for Told {
    fn tell(&self, event: Event<'_>) {
        self.0.lock().unwrap().push(serde_json::to_value(event).unwrap());
    }
}

/// A started server.
pub struct Served {
    pub server: Arc<Server>,
    pub told: Arc<Told>,
    pub options: ServerOptions,
    pub folder: TempDir,
}

impl Served {
    /// One with the options that `set` makes of those for the bare image.
    pub fn new(set: impl FnOnce(&mut ServerOptions)) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        std::fs::write(&image, vec![PATTERN; SIZE as usize]).unwrap();
        let mut options = ServerOptions {
            image,
            device: DeviceOptions { create: true, ..Default::default() },
            control: Some(folder.path().join("control.sock")),
            ..Default::default()
        };
        set(&mut options);
        Served::start(options, folder)
    }

    /// One whose device is written to `a.cow`.
    pub fn with_cowfile() -> Served {
        Served::new(|options| options.cows = vec![options.image.with_file_name("a.cow")])
    }

    fn start(options: ServerOptions, folder: TempDir) -> Served {
        let told = Arc::new(Told::default());
        let server = Arc::new(Server::open(options.clone(), told.clone()).unwrap());
        server.start().unwrap();
        Served { server, told, options, folder }
    }

    /// Ends it, and starts another one with the same options.
    pub fn again(self) -> Served {
        let Served { server, options, folder, .. } = self;
        server.close().unwrap();
        // With it goes the lock on the cowfile.
        drop(server);
        Served::start(options, folder)
    }

    /// A file in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client of an export.
    pub fn connect(&self, name: &str) -> Connection {
        self.server.connect(name.as_bytes(), false).unwrap()
    }

    /// A reply of the control channel.
    pub fn ask(&self, request: &Value) -> Value {
        let mut channel = UnixStream::connect(self.options.control.as_ref().unwrap()).unwrap();
        writeln!(channel, "{request}").unwrap();
        let mut reply = String::new();
        BufReader::new(channel).read_line(&mut reply).unwrap();
        serde_json::from_str(&reply).unwrap()
    }

    /// Its state and counters.
    pub fn status(&self) -> Value {
        self.ask(&serde_json::json!({ "command": "status" }))
    }
}
