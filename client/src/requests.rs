//! One request, repeated where that cannot do harm.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{Credential, Error, Problem, Result, Session, SessionFile, SignedIn, Tokens};

/// So long a request is repeated that gets no answer.
const PATIENCE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(10);

/// A cloud, and who one is there.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    credential: Option<Credential>,
}

pub enum Body {
    Json(Value),
    /// Bytes of a file, for `content_type`.
    Bytes(Bytes),
}

pub struct Request<'a> {
    pub method: Method,
    /// Begins with `/`.
    pub path: &'a str,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Body>,
}

impl<'a> Request<'a> {
    pub fn new(method: Method, path: &'a str) -> Self {
        Self { method, path, query: Vec::new(), headers: Vec::new(), body: None }
    }

    pub fn json(mut self, body: Value) -> Self {
        self.body = Some(Body::Json(body));
        self
    }

    pub fn query(mut self, name: &str, value: &(impl ToString + ?Sized)) -> Self {
        self.query.push((name.to_owned(), value.to_string()));
        self
    }
}

/// How this program speaks HTTP, whatever it asks for.
pub(crate) fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("cumulo/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
}

/// What the API has answered; its status is a success.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// `null` without a body.
    pub body: Value,
}

impl Client {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(url: &str, credential: Option<Credential>) -> Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        let http = builder()
            .build()
            .map_err(|error| Error::Unreachable { url: url.clone(), cause: error.to_string() })?;
        Ok(Self { http, url, credential })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.send(&Request::new(Method::GET, path)).await?.body)
    }

    /// Sends a request, and again when that cannot make it happen twice: what is refused for a moment, what never left,
    /// and, with one `Idempotency-Key` for all tries of a POST, what got no answer.
    pub async fn send(&self, request: &Request<'_>) -> Result<Answer> {
        let response = self.open(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        let body = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
        // /metrics is no JSON.
        let body = body.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Ok(Answer { status, headers, body })
    }

    /// As `send`, with the answer's body to be read.
    pub async fn open(&self, request: &Request<'_>) -> Result<Response> {
        let key = Uuid::now_v7().to_string();
        let (deadline, mut pause) = (Instant::now() + PATIENCE, FIRST_PAUSE);
        let mut renewed = false;
        loop {
            let sent = self.try_once(request, &key).await?;
            let wait = match sent {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED && !renewed => {
                    let refused = self.refused(response).await;
                    if !self.renew().await? {
                        return Err(refused);
                    }
                    renewed = true;
                    continue;
                }
                Ok(response) => {
                    let again = matches!(response.status().as_u16(), 429 | 502 | 503 | 504);
                    let asked = response
                        .headers()
                        .get(header::RETRY_AFTER)
                        .and_then(|v| v.to_str().ok()?.parse().ok());
                    let refused = self.refused(response).await;
                    // A delayed sign-in is not to be hurried.
                    if !again || refused.code() == Some("sign_in_delayed") {
                        return Err(refused);
                    }
                    let wait = asked.map_or(pause, Duration::from_secs);
                    if Instant::now() + wait > deadline {
                        return Err(refused);
                    }
                    wait
                }
                Err(error) => {
                    let harmless =
                        error.is_connect() || request.method == Method::GET || request.method == Method::POST;
                    if !harmless || Instant::now() + pause > deadline {
                        return Err(self.unreachable(&error));
                    }
                    pause
                }
            };
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn try_once(&self, request: &Request<'_>, key: &str) -> Result<reqwest::Result<Response>> {
        let mut builder = self.http.request(request.method.clone(), format!("{}{}", self.url, request.path));
        if let Some(token) = self.token().await? {
            builder = builder.bearer_auth(token);
        }
        if request.method == Method::POST {
            builder = builder.header("Idempotency-Key", key);
        }
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        builder = match &request.body {
            Some(Body::Json(body)) => builder.json(body),
            Some(Body::Bytes(bytes)) => builder.body(bytes.clone()),
            None => builder,
        };
        Ok(builder.query(&request.query).send().await)
    }

    pub(crate) async fn refused(&self, response: Response) -> Error {
        let (url, status) = (self.url.clone(), response.status().as_u16());
        match response.json::<Problem>().await {
            Ok(problem) => Error::Refused(Box::new(problem)),
            Err(_) => Error::Foreign { url, status },
        }
    }

    pub(crate) fn unreachable(&self, error: &reqwest::Error) -> Error {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Error::Unreachable { url: self.url.clone(), cause: cause.to_string() }
    }

    async fn token(&self) -> Result<Option<String>> {
        match &self.credential {
            None => Ok(None),
            Some(Credential::ApiKey(key)) => Ok(Some(key.clone())),
            Some(Credential::Session(file)) => {
                let session = file.read()?.ok_or_else(|| not_signed_in("You are not signed in"))?;
                let session =
                    if session.is_fresh() { session } else { self.exchange(file, &session).await? };
                Ok(Some(session.access_token))
            }
        }
    }

    /// Another access token after one was refused; `false` where there is none to be had.
    async fn renew(&self) -> Result<bool> {
        let Some(Credential::Session(file)) = &self.credential else { return Ok(false) };
        let Some(session) = file.read()? else { return Ok(false) };
        self.exchange(file, &session).await.map(|_| true)
    }

    /// New tokens for old ones, unless another process has them already.
    async fn exchange(&self, file: &SessionFile, old: &Session) -> Result<Session> {
        let locked = file.clone();
        let lock = tokio::task::spawn_blocking(move || locked.lock()).await;
        let _lock = lock.map_err(|error| not_signed_in(&error.to_string()))??;
        match file.read()? {
            Some(newer) if newer.access_token != old.access_token => return Ok(newer),
            Some(_) => {}
            None => return Err(not_signed_in("You have been signed out")),
        }
        let anonymous = Self { credential: None, ..self.clone() };
        let request =
            Request::new(Method::POST, "/v1/auth/refresh").json(json!({"refresh_token": old.refresh_token}));
        match Box::pin(anonymous.send(&request)).await {
            Ok(answer) => {
                let session = Session::of(anonymous.tokens(answer)?);
                file.write(&session)?;
                Ok(session)
            }
            Err(Error::Refused(problem)) if problem.status == 401 => {
                file.remove()?;
                Err(not_signed_in("The sign-in has ended"))
            }
            Err(error) => Err(error),
        }
    }

    /// Signs in. Users with a second factor are refused with `second_factor_required` until `otp` is given.
    pub async fn sign_in(&self, username: &str, password: &str, otp: Option<&str>) -> Result<SignedIn> {
        let mut body = json!({"username": username, "password": password});
        if let Some(otp) = otp {
            body["otp"] = json!(otp);
        }
        let anonymous = Self { credential: None, ..self.clone() };
        let answer = anonymous.send(&Request::new(Method::POST, "/v1/auth/login").json(body)).await?;
        Ok(anonymous.tokens(answer)?.into())
    }

    fn tokens(&self, answer: Answer) -> Result<Tokens> {
        let foreign = |_| Error::Foreign { url: self.url.clone(), status: answer.status.as_u16() };
        serde_json::from_value(answer.body).map_err(foreign)
    }
}

fn not_signed_in(what: &str) -> Error {
    Error::NotSignedIn(format!("{what}. Sign in with `cumulo login`, or set CUMULO_API_KEY."))
}
