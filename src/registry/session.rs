//! One registry's repository, with who we are to it: single requests.
//!
//! Credentials go to the registry itself and to no host that it points to.

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use reqwest::header::{ACCEPT, HeaderMap};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};

use super::failure::{Failure, Patience};
use crate::digest::Digest;
use crate::store::MAX_DOCUMENT;
use crate::{Error, ErrorKind, Result};

const AGENT: &str = concat!("worldshim/", env!("CARGO_PKG_VERSION"));
const CONNECT: Duration = Duration::from_secs(30);
/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(60);
/// How long one piece of an upload may take.
const PIECE: Duration = Duration::from_secs(600);
/// Most bytes of a refusal that are read.
const MAX_REFUSAL: usize = 64 << 10;

const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// How to reach a registry.
#[derive(Debug, Clone, Default)]
pub(super) struct Way {
    /// HTTP, unencrypted.
    pub plain_http: bool,
    /// Certificates to be trusted beside the system's, in PEM.
    pub roots: Vec<Vec<u8>>,
}

pub(super) struct Session {
    pub client: Client,
    pub target: Reference,
    http: reqwest::Client,
    base: Url,
    credentials: RegistryAuth,
    operation: RegistryOperation,
    bearer: Mutex<Option<String>>,
}

impl Session {
    pub fn new(
        target: Reference,
        credentials: RegistryAuth,
        operation: RegistryOperation,
        way: &Way,
    ) -> Result<Session, Failure> {
        // An error says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (scheme, protocol) = match way.plain_http {
            true => ("http", ClientProtocol::Http),
            false => ("https", ClientProtocol::Https),
        };
        let base = format!("{scheme}://{}/v2/", target.resolve_registry());
        let base = Url::parse(&base).map_err(|error| {
            Error::caused_by(
                ErrorKind::InvalidInput,
                format!("the address {base}"),
                error,
            )
        })?;
        let here = is_here(&base);
        let pem = |data: &Vec<u8>| Certificate {
            encoding: CertificateEncoding::Pem,
            data: data.clone(),
        };
        let client = Client::try_from(ClientConfig {
            protocol,
            read_timeout: Some(SILENCE),
            connect_timeout: Some(CONNECT),
            user_agent: AGENT,
            extra_root_certificates: way.roots.iter().map(pem).collect(),
            // The crate has no other way to say that no proxy of the environment is to be used.
            http_proxy: here.then(|| base.to_string()),
            no_proxy: here.then(|| "*".to_owned()),
            ..ClientConfig::default()
        })?;
        let roots = way.roots.iter();
        let roots = roots.map(|pem| reqwest::Certificate::from_pem(pem));
        let builder = match here {
            true => reqwest::Client::builder().no_proxy(),
            false => reqwest::Client::builder(),
        };
        let http = builder
            .tls_certs_merge(roots.collect::<Result<Vec<_>, _>>()?)
            .connect_timeout(CONNECT)
            .read_timeout(PIECE)
            .user_agent(AGENT)
            .build()?;
        Ok(Session {
            client,
            target,
            http,
            base,
            credentials,
            operation,
            bearer: Mutex::default(),
        })
    }

    /// Who we are.
    pub fn credentials(&self) -> &RegistryAuth {
        &self.credentials
    }

    /// Asks for leave to do what we are going to do.
    pub async fn login(&self) -> Result<(), Failure> {
        let asked = self
            .client
            .auth(&self.target, &self.credentials, self.operation);
        let bearer = asked.await?;
        *self.bearer.lock().unwrap_or_else(PoisonError::into_inner) = bearer;
        Ok(())
    }

    /// Lives through a failure: waits, or asks for leave again where it has run out.
    pub async fn bear(&self, failure: Failure, patience: &mut Patience) -> Result<(), Failure> {
        let granted = {
            let mut bearer = self.bearer.lock().unwrap_or_else(PoisonError::into_inner);
            bearer.take().is_some()
        };
        match failure.status() {
            Some(401) if granted => self.login().await,
            _ => patience.bear(failure).await,
        }
    }

    /// A request to the registry, or to where it pointed us.
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        let ours = url.origin() == self.base.origin();
        let request = self.http.request(method, url);
        if !ours {
            return request;
        }
        let bearer = self.bearer.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*bearer, &self.credentials) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            (None, _) => request,
        }
    }

    /// Sends a request that must be answered with `expected`.
    pub async fn send(
        &self,
        request: RequestBuilder,
        expected: &[StatusCode],
    ) -> Result<Response, Failure> {
        let response = request.send().await?;
        let status = response.status();
        match expected.contains(&status) {
            true => Ok(response),
            false => {
                let (body, _) = bounded(response, MAX_REFUSAL).await?;
                Err(Failure::refused(status.as_u16(), &body))
            }
        }
    }

    /// An address below the repository's.
    pub fn url(&self, below: &str) -> Result<Url, Failure> {
        let path = format!("{}/{below}", self.target.repository());
        let url = self.base.join(&path).map_err(|error| {
            Error::caused_by(
                ErrorKind::InvalidInput,
                format!("the address {path}"),
                error,
            )
        })?;
        Ok(url)
    }

    /// The bytes of the manifest that is meant, and the digest that the registry says it has.
    pub async fn manifest(&self) -> Result<(Vec<u8>, Option<String>), Failure> {
        let target = &self.target;
        let which = target.digest().or(target.tag()).unwrap_or("latest");
        let url = self.url(&format!("manifests/{which}"))?;
        let request = self.request(Method::GET, url).header(ACCEPT, MANIFESTS);
        let response = in_time(self.send(request, &[StatusCode::OK])).await?;
        let told = text(response.headers(), "docker-content-digest");
        match bounded(response, MAX_DOCUMENT).await? {
            (bytes, true) => Ok((bytes, told)),
            (_, false) => {
                let text = format!("the manifest has more than {MAX_DOCUMENT} bytes");
                Err(Error::new(ErrorKind::CorruptWorld, text).into())
            }
        }
    }

    /// Whether the repository has a blob.
    pub async fn has_blob(&self, digest: &Digest) -> Result<bool, Failure> {
        let url = self.url(&format!("blobs/{digest}"))?;
        let request = self.request(Method::HEAD, url);
        let expected = [StatusCode::OK, StatusCode::NOT_FOUND];
        let response = in_time(self.send(request, &expected)).await?;
        Ok(response.status() == StatusCode::OK)
    }
}

/// Whether a host is this one: like docker and oras, we go there without a proxy.
fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Waits for something that must not take long to begin or to go on.
pub(super) async fn in_time<T, E: Into<Failure>>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(SILENCE, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Failure::Broken(format!("nothing came for {SILENCE:?}"))),
    }
}

/// Reads a body of at most `limit` bytes; false where there is more.
async fn bounded(mut response: Response, limit: usize) -> Result<(Vec<u8>, bool), Failure> {
    let mut bytes = Vec::new();
    while let Some(piece) = in_time(response.chunk()).await? {
        let room = limit - bytes.len();
        if piece.len() > room {
            bytes.extend_from_slice(&piece[..room]);
            return Ok((bytes, false));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, true))
}

/// A header that is text.
pub(super) fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
