//! The words of the control channel: one JSON object a line, each way.
//!
//! ```text
//! > {"command":"status"}
//! < {"ok":true,"pid":4711,"size":1048576,...}
//! > {"command":"sing"}
//! < {"ok":false,"error":"unknown command \"sing\""}
//! ```

use std::path::PathBuf;

use cowcloop_engine::overlay::SnapshotSummary;
use serde::Serialize;
use serde_json::Value;

use crate::server::Server;
use crate::status::Status;

/// The requests of a client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// State and counters.
    Status,
    /// Everything acknowledged to the medium, then the answer.
    Sync,
    /// A consistent copy of the cowfile, under a new name.
    Snapshot {
        /// The absolute path of the copy.
        path: PathBuf,
        /// The session whose cowfile is copied.
        session: Option<String>,
    },
    /// The cowfile closed cleanly, and the device read-only from then on.
    ReopenReadOnly {
        /// The session that becomes read-only until its last client leaves.
        session: Option<String>,
    },
    /// What was written in a session discarded: it begins anew.
    Reset {
        /// The session.
        session: String,
        /// Its clients are cut off.
        force: bool,
    },
    /// The image's file let go of, so that its medium can be taken out.
    Suspend,
    /// The image's file opened anew.
    Resume,
}

impl Command {
    /// Reads a request. The error is a line for the client.
    pub(crate) fn parse(line: &[u8]) -> Result<Command, String> {
        let request: Value = serde_json::from_slice(line)
            .map_err(|error| format!("the request is not a JSON object: {error}"))?;
        let session = || match request.get("session") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(name)) => Ok(Some(name.clone())),
            Some(_) => Err("the session is not named by a string".to_string()),
        };
        match request.get("command").and_then(Value::as_str) {
            Some("status") => Ok(Command::Status),
            Some("sync") => Ok(Command::Sync),
            Some("snapshot") => {
                // A relative path would start from the server's folder, not the client's.
                let path = request.get("path").and_then(Value::as_str).map(PathBuf::from);
                let path = path.filter(|path| path.is_absolute());
                let path = path.ok_or("snapshot: the request names no absolute path")?;
                Ok(Command::Snapshot { path, session: session()? })
            }
            Some("reopen-read-only") => Ok(Command::ReopenReadOnly { session: session()? }),
            Some("reset") => {
                let session = session()?.ok_or("reset: the request names no session")?;
                let force = request.get("force").and_then(Value::as_bool).unwrap_or(false);
                Ok(Command::Reset { session, force })
            }
            Some("suspend") => Ok(Command::Suspend),
            Some("resume") => Ok(Command::Resume),
            Some(other) => Err(format!("unknown command {other:?}")),
            None => Err("the request names no command".into()),
        }
    }

    fn run(&self, server: &Server) -> Result<Answer, String> {
        let done = |()| Answer::Done {};
        match self {
            Command::Status => Ok(Answer::Status(Box::new(server.status()))),
            Command::Sync => server.sync().map(done),
            Command::Snapshot { path, session } => {
                server.snapshot(session.as_deref(), path).map(Answer::Snapshot)
            }
            Command::ReopenReadOnly { session } => {
                server.reopen_read_only(session.as_deref()).map(done)
            }
            Command::Reset { session, force } => server.reset(session, *force).map(done),
            Command::Suspend => server.suspend().map(done),
            Command::Resume => server.resume().map(done),
        }
    }
}

/// The answer to a successful request, besides `"ok":true`.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Done {},
    Status(Box<Status>),
    Snapshot(SnapshotSummary),
}

/// The line as a whole.
#[derive(Serialize)]
#[serde(untagged)]
enum Reply<T> {
    Done {
        ok: bool,
        #[serde(flatten)]
        answer: T,
    },
    Failed {
        ok: bool,
        error: String,
    },
}

/// The reply to a request line, with its line end.
pub(crate) fn answer(line: &[u8], server: &Server) -> String {
    reply(Command::parse(line).and_then(|command| command.run(server)))
}

/// The reply to a client that is turned away, with its line end.
pub(crate) fn refusal(error: String) -> String {
    reply::<Answer>(Err(error))
}

fn reply<T: Serialize>(result: Result<T, String>) -> String {
    let reply = match result {
        Ok(answer) => Reply::Done { ok: true, answer },
        Err(error) => Reply::Failed { ok: false, error },
    };
    let mut line = serde_json::to_string(&reply).unwrap_or_else(|error| {
        format!(r#"{{"ok":false,"error":"the reply cannot be written: {error}"}}"#)
    });
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        assert_eq!(Command::parse(b"{\"command\":\"status\"}\n"), Ok(Command::Status));
        assert_eq!(Command::parse(b" {\"id\":1, \"command\":\"sync\"} \r\n"), Ok(Command::Sync));
        assert_eq!(Command::parse(br#"{"command":"suspend"}"#), Ok(Command::Suspend));
        assert_eq!(Command::parse(br#"{"command":"resume"}"#), Ok(Command::Resume));
        let wanted = Command::Snapshot { path: "/a/b".into(), session: Some("s".into()) };
        let line = br#"{"command":"snapshot","path":"/a/b","session":"s"}"#;
        assert_eq!(Command::parse(line), Ok(wanted));
        let wanted = Command::Reset { session: "s".into(), force: false };
        assert_eq!(Command::parse(br#"{"command":"reset","session":"s"}"#), Ok(wanted));
        let wanted = Command::ReopenReadOnly { session: None };
        assert_eq!(Command::parse(br#"{"command":"reopen-read-only"}"#), Ok(wanted));
    }

    #[test]
    fn what_is_no_request_is_refused_with_a_reason() {
        for (line, reason) in [
            (&b""[..], "not a JSON object"),
            (b"status", "not a JSON object"),
            (b"{\"command\":", "not a JSON object"),
            (b"{\"command\":\"status\"} x", "not a JSON object"),
            (b"\xff\xfe", "not a JSON object"),
            (b"[]", "names no command"),
            (b"null", "names no command"),
            (b"{}", "names no command"),
            (b"{\"command\":7}", "names no command"),
            (br#"{"command":"snapshot"}"#, "names no absolute path"),
            (br#"{"command":"reset"}"#, "names no session"),
            (br#"{"command":"snapshot","path":"a"}"#, "names no absolute path"),
            (br#"{"command":"reopen-read-only","session":1}"#, "not named by a string"),
            (b"{\"command\":\"Status\"}", "unknown command \"Status\""),
        ] {
            let error = Command::parse(line).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        let deep = "[".repeat(100_000);
        assert!(Command::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_reply_is_one_line_whatever_is_in_it() {
        let line = refusal("a\nb".into());
        assert_eq!(line, "{\"ok\":false,\"error\":\"a\\nb\"}\n");
        let line = reply(Ok(serde_json::json!({ "path": "x\u{2028}\n" })));
        assert_eq!(line.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["ok"], true);
        assert_eq!(reply(Ok(Answer::Done {})), "{\"ok\":true}\n");
    }
}
