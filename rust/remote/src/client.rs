//! One request for a range, made by object_store with a client of our own.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{HeaderValue, ACCEPT_ENCODING, AUTHORIZATION};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig};
use reqwest::redirect::{Attempt, Policy};
use reqwest::Certificate;

use crate::address::Address;
use crate::answer::Asked;
use crate::counts::Counts;
use crate::failure::{Failure, Kind};
use crate::options::RemoteOptions;
use crate::version::Version;

/// Redirections that are followed.
const REDIRECTIONS: usize = 8;
/// What a server may have on its way, of one range and of all, over HTTP/2.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;

/// What the C libraries say (`gai_strerror`) of a name that does not exist, or has no address; of a
/// name server that is away they say something else.
const NO_HOST: [&str; 4] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "Name has no usable address",
];

/// The bytes of a range, and how they came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub bytes: Bytes,
    pub version: Version,
    /// Until the head was there.
    pub latency: Duration,
    /// From then on.
    pub body: Duration,
}

/// The place of one image.
#[derive(Debug)]
pub(crate) struct Client {
    store: Box<dyn ObjectStore>,
    path: Path,
    idle: Duration,
    counts: Arc<Counts>,
}

impl Client {
    pub fn new(
        address: &Address,
        options: &RemoteOptions,
        counts: Arc<Counts>,
    ) -> Result<Client, Failure> {
        let (client, no_tls) = http_client(options)?;
        let login = address.login().map(|(user, password)| basic(user, password));
        let connector = Connector { client, no_tls, login };
        let (store, path) = store(address, connector).map_err(|error| {
            Failure::new(Kind::Ours, format!("cannot be used: {}", cause(&error)))
        })?;
        Ok(Client { store, path, idle: options.idle(), counts })
    }

    /// Asks once for a range of the image, or of that version of it alone.
    pub async fn get(&self, range: Range<u64>, of: Option<&Version>) -> Result<Answer, Failure> {
        let asked = Asked::new(range.clone());
        let mut options = of.map_or_else(GetOptions::default, Version::conditions);
        options.range = Some(GetRange::Bounded(range));
        options.extensions.insert(asked.clone());
        self.counts.request();
        let begun = Instant::now();
        let stalled = || Failure::new(Kind::Away, "the server does not answer");
        let got = tokio::time::timeout(self.idle, self.store.get_opts(&self.path, options)).await;
        let got = got.map_err(|_| stalled())?;
        let head = match (asked.take(), &got) {
            (Some(Err(failure)), _) => return Err(failure),
            (_, Err(error)) => return Err(Failure::new(Kind::Refused, cause(error))),
            (None, Ok(_)) => return Err(stalled()),
            (Some(Ok(head)), Ok(_)) => head,
        };
        if of.is_some_and(|version| !version.agrees(&head.version)) {
            return Err(Failure::changed());
        }
        let Ok(got) = got else { return Err(stalled()) };
        let headed = Instant::now();
        let length = (head.range.end - head.range.start) as usize;
        let bytes = self.body(got.into_stream(), length).await?;
        let (latency, body) = (headed - begun, headed.elapsed());
        Ok(Answer { bytes: bytes.into(), version: head.version, latency, body })
    }

    async fn body(
        &self,
        mut stream: futures_util::stream::BoxStream<'static, object_store::Result<Bytes>>,
        length: usize,
    ) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::with_capacity(length);
        loop {
            let next = tokio::time::timeout(self.idle, stream.next()).await;
            let next = next.map_err(|_| Failure::new(Kind::Away, "the server has stalled"))?;
            if let Some(Ok(more)) = &next {
                self.counts.received(more.len());
            }
            match next {
                Some(Ok(more)) if bytes.len() + more.len() <= length => bytes.extend(more),
                Some(Ok(_)) => {
                    return Err(Failure::new(Kind::Wrong, "the server sends more than it says"))
                }
                Some(Err(error)) => {
                    let reason = format!("the answer broke off: {}", cause(&error));
                    return Err(Failure::new(Kind::Away, reason));
                }
                None if bytes.len() < length => {
                    return Err(Failure::new(Kind::Wrong, "the server sends less than it says"))
                }
                None => return Ok(bytes),
            }
        }
    }
}

fn store(
    address: &Address,
    connector: Connector,
) -> object_store::Result<(Box<dyn ObjectStore>, Path)> {
    // We try again ourselves: with a bound, and with what the server asks for.
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let url = address.url();
    let path = || Path::from_url_path(url.path()).map_err(object_store::Error::from);
    Ok(match url.scheme() {
        "s3" => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(address.bucket());
            let store = builder.with_retry(retry).with_http_connector(connector).build()?;
            (Box::new(store), path()?)
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env();
            let builder = builder.with_bucket_name(address.bucket());
            let store = builder.with_retry(retry).with_http_connector(connector).build()?;
            (Box::new(store), path()?)
        }
        "az" => {
            let builder = MicrosoftAzureBuilder::from_env();
            let builder = builder.with_container_name(address.bucket());
            let store = builder.with_retry(retry).with_http_connector(connector).build()?;
            (Box::new(store), path()?)
        }
        _ => {
            let builder = HttpBuilder::new().with_url(url.as_str()).with_retry(retry);
            (Box::new(builder.with_http_connector(connector).build()?), Path::default())
        }
    })
}

/// A client; and why it can do nothing with TLS, if so.
fn http_client(options: &RemoteOptions) -> Result<(reqwest::Client, Option<Failure>), Failure> {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        reqwest::Client::builder()
            .user_agent(concat!("cowcloop/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.idle())
            .redirect(Policy::custom(redirected))
            .retry(reqwest::retry::never())
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
    };
    let ours = |reason: String| Failure::new(Kind::Ours, reason);
    let Some(file) = &options.ca_file else {
        let reason = match builder().build() {
            Ok(client) => return Ok((client, None)),
            Err(error) => cause(&error),
        };
        let remedy = "install them (Debian package ca-certificates), or use --ca-file";
        let no_tls = ours(format!("no authority can vouch for its server: {reason}; {remedy}"));
        // A system that knows no authorities can do everything else.
        let client = builder().tls_certs_only([]).build();
        return client.map(|client| (client, Some(no_tls))).map_err(|error| ours(cause(&error)));
    };
    let refuse = |reason: String| ours(format!("--ca-file {}: {reason}", file.display()));
    let pem = std::fs::read(file).map_err(|error| refuse(plain(&error.to_string())))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|e| refuse(cause(&e)))?;
    if certificates.is_empty() {
        return Err(refuse("no certificate in it".into()));
    }
    // A system may have no certificates of its own to add these to.
    let merged = builder().tls_certs_merge(certificates.clone()).build();
    let built = merged.or_else(|_| builder().tls_certs_only(certificates).build());
    built.map(|client| (client, None)).map_err(|error| refuse(cause(&error)))
}

/// Follows a redirection, but not for ever, and not out of TLS.
fn redirected(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let secure = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > REDIRECTIONS {
        attempt.error("the server redirects without end")
    } else if secure && attempt.url().scheme() != "https" {
        attempt.error("the server redirects from https to http")
    } else {
        attempt.follow()
    }
}

/// What HTTP's basic authentication sends.
fn basic(user: &str, password: &str) -> HeaderValue {
    let words = STANDARD.encode(format!("{user}:{password}"));
    let value = HeaderValue::from_str(&format!("Basic {words}"));
    let mut value = value.unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// Gives object_store our client.
#[derive(Debug, Clone)]
struct Connector {
    client: reqwest::Client,
    /// Why it can do nothing with TLS.
    no_tls: Option<Failure>,
    login: Option<HeaderValue>,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        // Others are for credentials.
        let asked = request.extensions().get::<Asked>().cloned();
        if asked.is_some() {
            let headers = request.headers_mut();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some(login) = &self.login {
                headers.insert(AUTHORIZATION, login.clone());
            }
        }
        let secure = request.uri().scheme_str() == Some("https");
        if let Some(failure) = self.no_tls.as_ref().filter(|_| secure) {
            asked.iter().for_each(|asked| asked.fail(failure.clone()));
            let error = std::io::Error::other(failure.reason.clone());
            return Err(HttpError::new(HttpErrorKind::Connect, error));
        }
        let response = HttpService::call(&self.client, request).await;
        let Some(asked) = asked else { return response };
        let response = response.inspect_err(|error| asked.fail(unanswered(error)))?;
        if asked.look(response.status(), response.headers()) || !response.status().is_success() {
            return Ok(response);
        }
        let message = "not the part that was asked for";
        Err(HttpError::new(HttpErrorKind::Decode, std::io::Error::other(message)))
    }
}

fn unanswered(error: &HttpError) -> Failure {
    let reason = cause(error);
    let kind =
        if NO_HOST.iter().any(|text| reason.ends_with(text)) { Kind::NoHost } else { Kind::Away };
    Failure::new(kind, reason)
}

/// The innermost reason of an error, which names no URL.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    let mut text = error.to_string();
    while let Some(source) = last.source() {
        last = source;
        text = source.to_string();
    }
    plain(&text)
}

/// The system's words without the number that Rust appends, on one line.
fn plain(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or(text);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
