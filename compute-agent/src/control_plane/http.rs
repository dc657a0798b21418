//! The control plane over HTTPS.

use std::io;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};
use protocol::agent::{
    CONSOLE_PROTOCOL, DesiredPage, DesiredQuery, DriftAccepted, DriftReport, Epoch, Heartbeat,
    HeartbeatReply, ImageStatus, InsightAccepted, InsightBatch, ObservedAccepted, ObservedBatch, OpenSession,
    Refusal, RenewRequest, RenewResponse, RequestQuery, SendQuery, SessionOpened,
};
use protocol::{ConsoleId, Sha256, TransferId};
use reqwest::{Body, Client, RequestBuilder, Response, StatusCode};
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{ControlPlane, ControlPlaneError};
use crate::consoles;
use crate::host_storage::{BoxError, ByteStream};
use crate::identity::{Endpoint, Identity, IdentityError, ParseEndpointError, tls};

/// For everything that is answered at once.
const TIMEOUT: Duration = Duration::from_secs(20);
/// What a long poll may take beyond its wait.
const GRACE: Duration = Duration::from_secs(10);
/// A body of which nothing was taken for so long will not arrive; and so long its receiver may look at it.
const STUCK: Duration = Duration::from_secs(120);
/// The part of a refusal that is read.
const MAX_PROBLEM_BYTES: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub struct HttpControlPlane {
    endpoint: Endpoint,
    base_url: String,
    clients: RwLock<Clients>,
}

#[derive(Debug, Clone)]
struct Clients {
    /// Gives up when no answer comes.
    patient: Client,
    /// For bodies that take longer than an answer may: watched while they are sent.
    sending: Client,
    /// For connections of their own.
    config: ClientConfig,
}

impl Clients {
    fn of(endpoint: &Endpoint, identity: &Identity) -> Result<Self, IdentityError> {
        let config = tls::mutual(identity)?;
        let patient = tls::client(endpoint, config.clone())?;
        Ok(Self { patient, sending: tls::sending_client(endpoint, config.clone())?, config })
    }
}

/// The part of an RFC 9457 document that decides anything.
#[derive(Debug, Deserialize)]
struct Problem {
    code: String,
    #[serde(default)]
    detail: Option<String>,
}

impl HttpControlPlane {
    pub fn new(identity: &Identity) -> Result<Self, IdentityError> {
        let endpoint = identity.membership.control_plane.clone();
        let clients = RwLock::new(Clients::of(&endpoint, identity)?);
        Ok(Self { base_url: endpoint.base_url(), endpoint, clients })
    }

    /// New connections present this identity's certificate.
    pub fn use_identity(&self, identity: &Identity) -> Result<(), IdentityError> {
        let clients = Clients::of(&self.endpoint, identity)?;
        *self.clients.write().unwrap_or_else(PoisonError::into_inner) = clients;
        Ok(())
    }

    pub async fn renew(&self, request: &RenewRequest) -> Result<RenewResponse, ControlPlaneError> {
        self.post("the renewal", "/agent/v1/renew", request).await
    }

    fn client(&self) -> Client {
        self.clients().patient
    }

    fn clients(&self) -> Clients {
        self.clients.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base_url)
    }

    async fn post<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        call: &'static str,
        path: &str,
        body: &Q,
    ) -> Result<A, ControlPlaneError> {
        post(&self.client(), &self.base_url, call, path, body).await
    }
}

/// One JSON call.
pub(crate) async fn post<Q: Serialize + Sync, A: DeserializeOwned>(
    client: &Client,
    base_url: &str,
    call: &'static str,
    path: &str,
    body: &Q,
) -> Result<A, ControlPlaneError> {
    let request = client.post(format!("{base_url}{path}")).timeout(TIMEOUT).json(body);
    answer(call, send(call, request).await?).await
}

/// Sends; whatever is not a success is an error.
async fn send(call: &'static str, request: RequestBuilder) -> Result<Response, ControlPlaneError> {
    let response = request.send().await.map_err(|error| unreachable(call, error))?;
    if response.status().is_success() { Ok(response) } else { Err(refusal(call, response).await) }
}

async fn answer<A: DeserializeOwned>(call: &'static str, response: Response) -> Result<A, ControlPlaneError> {
    let bytes = response.bytes().await.map_err(|error| unreachable(call, error))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ControlPlaneError::Malformed { call, source: error.into() })
}

async fn refusal(call: &'static str, response: Response) -> ControlPlaneError {
    let status = response.status();
    let (code, detail) =
        problem(response).await.map_or_else(Default::default, |problem| (problem.code, problem.detail));
    if status == StatusCode::CONFLICT && code == "stale_epoch" {
        ControlPlaneError::StaleEpoch
    } else if status == StatusCode::UNAUTHORIZED && code == "host_removed" {
        ControlPlaneError::Removed
    } else if code == "unsupported_protocol" {
        ControlPlaneError::UnsupportedProtocol { detail: detail.unwrap_or_default() }
    } else {
        ControlPlaneError::Refused { call, status: status.as_u16(), code }
    }
}

async fn problem(response: Response) -> Option<Problem> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        body.extend_from_slice(&chunk.ok()?);
        if body.len() > MAX_PROBLEM_BYTES {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

/// The URL is the same for all, and the cause says the rest.
fn unreachable(call: &'static str, error: reqwest::Error) -> ControlPlaneError {
    ControlPlaneError::Unreachable { call, source: error.without_url().into() }
}

#[async_trait]
impl ControlPlane for HttpControlPlane {
    async fn open_session(&self, request: &OpenSession) -> Result<SessionOpened, ControlPlaneError> {
        self.post("the session", "/agent/v1/sessions", request).await
    }

    async fn desired(&self, query: &DesiredQuery) -> Result<DesiredPage, ControlPlaneError> {
        let call = "the desired state";
        let timeout = Duration::from_secs(query.wait_seconds.into()) + GRACE;
        let request = self.client().get(self.url("/agent/v1/desired")).query(query).timeout(timeout);
        answer(call, send(call, request).await?).await
    }

    async fn observed(&self, batch: &ObservedBatch) -> Result<ObservedAccepted, ControlPlaneError> {
        self.post("the reports", "/agent/v1/observed", batch).await
    }

    async fn heartbeat(&self, heartbeat: &Heartbeat) -> Result<HeartbeatReply, ControlPlaneError> {
        self.post("the heartbeat", "/agent/v1/heartbeat", heartbeat).await
    }

    async fn insight(&self, batch: &InsightBatch) -> Result<InsightAccepted, ControlPlaneError> {
        self.post("the measurements", "/agent/v1/insight", batch).await
    }

    async fn drift(&self, report: &DriftReport) -> Result<DriftAccepted, ControlPlaneError> {
        self.post("what differs", "/agent/v1/drift", report).await
    }

    async fn blob(&self, sha256: Sha256) -> Result<ByteStream, ControlPlaneError> {
        // No limit in all: an image may be large and the line slow. Silence is limited by the client.
        let request = self.client().get(self.url(&format!("/agent/v1/blobs/{sha256}")));
        let response = send("the image", request).await?;
        Ok(response.bytes_stream().map_err(|error| io::Error::other(error.without_url())).boxed())
    }

    async fn transfer(&self, id: TransferId, epoch: Epoch, bytes: Vec<u8>) -> Result<(), ControlPlaneError> {
        let request = self
            .client()
            .post(self.url(&format!("/agent/v1/transfers/{id}")))
            .query(&[("epoch", epoch.0)])
            .header("content-type", "application/octet-stream")
            .timeout(TIMEOUT)
            .body(bytes);
        send("the transfer", request).await.map(drop)
    }

    async fn send_image(
        &self,
        id: TransferId,
        epoch: Epoch,
        size_bytes: u64,
        bytes: ByteStream,
    ) -> Result<(), ControlPlaneError> {
        const CALL: &str = "the image that was asked for";
        let (moved, mut seen) = watch::channel(());
        let bytes = bytes.inspect(move |_| moved.send_modify(|()| {}));
        let request = self
            .clients()
            .sending
            .post(self.url(&format!("/agent/v1/images/{id}")))
            .query(&SendQuery { epoch })
            .header("content-type", "application/octet-stream")
            .header("content-length", size_bytes)
            .body(Body::wrap_stream(bytes));
        let stuck = async {
            while let Ok(moved) = tokio::time::timeout(STUCK, seen.changed()).await {
                if moved.is_err() {
                    // All of it is on its way, and the answer is waited for.
                    return tokio::time::sleep(STUCK).await;
                }
            }
        };
        tokio::select! {
            sent = send(CALL, request) => sent.map(drop),
            () = stuck => Err(ControlPlaneError::Unreachable { call: CALL, source: "nothing moves".into() }),
        }
    }

    async fn bring_console(
        &self,
        id: ConsoleId,
        epoch: Epoch,
        dial: Option<&str>,
    ) -> Result<consoles::Stream, ControlPlaneError> {
        const CALL: &str = "the console that was asked for";
        let broken = |source: BoxError| ControlPlaneError::Unreachable { call: CALL, source };
        let endpoint = match dial {
            Some(address) => address.parse().map_err(|error: ParseEndpointError| {
                ControlPlaneError::Malformed { call: CALL, source: error.into() }
            })?,
            None => self.endpoint.clone(),
        };
        // A connection of its own, which dies with the console.
        let client =
            tls::stream_client(&endpoint, self.clients().config).map_err(|error| broken(error.into()))?;
        let request = client
            .get(format!("{}/agent/v1/consoles/{id}", endpoint.base_url()))
            .query(&RequestQuery { epoch })
            .header("connection", "upgrade")
            .header("upgrade", CONSOLE_PROTOCOL);
        let response =
            tokio::time::timeout(TIMEOUT, request.send()).await.map_err(|late| broken(late.into()))?;
        let response = response.map_err(|error| unreachable(CALL, error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(CALL, response).await);
        }
        let upgraded = response.upgrade().await.map_err(|error| unreachable(CALL, error))?;
        Ok(Box::new(upgraded))
    }

    async fn refuse(&self, id: TransferId, epoch: Epoch, refusal: &Refusal) -> Result<(), ControlPlaneError> {
        let url = self.url(&format!("/agent/v1/requests/{id}/refusal"));
        let request = self.client().post(url).query(&RequestQuery { epoch }).timeout(TIMEOUT).json(refusal);
        send("a refusal", request).await.map(drop)
    }

    async fn image_status(&self, id: TransferId, status: &ImageStatus) -> Result<(), ControlPlaneError> {
        let url = self.url(&format!("/agent/v1/images/{id}/status"));
        let request = self.client().post(url).timeout(TIMEOUT).json(status);
        send("the state of an image", request).await.map(drop)
    }
}
