//! The events of a server, and their receiver.

use serde::{Serialize, Serializer};

use crate::words::one_line;

/// What happened, for the user and for programs that watch the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// Clients can connect.
    Ready {
        /// The server's process.
        pid: u32,
        /// The path of the device, where the server makes one.
        #[serde(skip_serializing_if = "Option::is_none")]
        device: Option<&'a str>,
        /// Why no other server could go on with it, where none could.
        #[serde(skip_serializing_if = "Option::is_none")]
        irreplaceable: Option<&'a str>,
    },
    /// A failure that the server's owner should know of.
    Error {
        /// One line.
        #[serde(serialize_with = "harmless")]
        text: &'a str,
    },
    /// A warning of a possible failure.
    Warning {
        /// One line.
        #[serde(serialize_with = "harmless")]
        text: &'a str,
    },
    /// A client's request failed, and the client was told so.
    RequestFailed {
        /// One line.
        #[serde(serialize_with = "harmless")]
        text: &'a str,
    },
    /// A client was turned away.
    ClientRefused {
        /// One line.
        #[serde(serialize_with = "harmless")]
        text: &'a str,
    },
    /// For a close look at the server itself.
    Debug {
        /// One line.
        #[serde(serialize_with = "harmless")]
        text: &'a str,
    },
    /// Everything is closed, and nothing was lost.
    Ended,
}

fn harmless<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&one_line(text))
}

/// Receives events from any thread, and must not hold it up for long.
pub trait Events: Send + Sync {
    /// Receives one event.
    fn tell(&self, event: Event<'_>);
}

impl<T: Events + ?Sized> Events for &T {
    fn tell(&self, event: Event<'_>) {
        (**self).tell(event);
    }
}

impl dyn Events + '_ {
    /// Sends an [`Event::Error`].
    pub fn error(&self, text: &str) {
        self.tell(Event::Error { text });
    }

    /// Tells of something that may be wrong.
    pub(crate) fn warning(&self, text: &str) {
        self.tell(Event::Warning { text });
    }

    /// Sends an [`Event::Debug`].
    pub fn debug(&self, text: &str) {
        self.tell(Event::Debug { text });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// Keeps the events, as the lines of JSON that they are written as.
    #[derive(Debug, Default)]
    pub(crate) struct Kept(Mutex<Vec<String>>);

    impl Kept {
        /// The events since the last call.
        pub(crate) fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock())
        }
    }

    impl Events for Kept {
        fn tell(&self, event: Event<'_>) {
            self.0.lock().push(serde_json::to_string(&event).unwrap());
        }
    }

    #[test]
    fn each_event_is_an_object_with_its_name() {
        let kept = Kept::default();
        kept.tell(Event::Ready { pid: 7, device: None, irreplaceable: None });
        kept.tell(Event::Ready { pid: 8, device: Some("/dev/x"), irreplaceable: Some("old") });
        kept.tell(Event::ClientRefused { text: "export \"x\"" });
        kept.tell(Event::Ended);
        let wanted = [
            r#"{"event":"ready","pid":7}"#,
            r#"{"event":"ready","pid":8,"device":"/dev/x","irreplaceable":"old"}"#,
            r#"{"event":"client-refused","text":"export \"x\""}"#,
            r#"{"event":"ended"}"#,
        ];
        assert_eq!(kept.take(), wanted);
    }
}
