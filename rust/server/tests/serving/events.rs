//! What is told.

use std::sync::Arc;
use std::time::Duration;

use cowcloop_server::{Fua, Server, ServerOptions};

use crate::support::{Served, Told, SIZE};

#[test]
fn a_request_that_fails_is_told() {
    let served = Served::with_cowfile();
    let client = served.connect("");
    assert!(client.write(&[1; 1024], SIZE, Fua(false)).is_err());
    assert_eq!(served.told.texts("request-failed").len(), 1);
    served.server.client_refused("export \"x\": no");
    assert_eq!(served.told.texts("client-refused"), ["export \"x\": no"]);
}

#[test]
fn the_end_is_told_when_everything_is_closed() {
    let served = Served::with_cowfile();
    assert_eq!(served.told.texts("ended").len(), 0);
    served.server.close().unwrap();
    assert_eq!(served.told.texts("ended").len(), 1);
}

#[test]
fn a_preload_reads_the_image_without_being_asked() {
    let served = Served::new(|options| options.preload = Some(1));
    let read = || served.status()["base"]["reads"] == 1;
    assert!((0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        read()
    }));
    served.server.close().unwrap();
}

#[test]
fn what_cannot_be_opened_is_one_line() {
    let options = ServerOptions { image: "/nonexistent/i".into(), ..Default::default() };
    let line = Server::open(options, Arc::new(Told::default())).err().unwrap();
    assert!(line.starts_with("/nonexistent/i: "), "{line}");
    assert_eq!(line.lines().count(), 1);
}
