//! A small client of the REST API, as a user would write one: JSON values, no types shared with the server.

mod answer;
mod instance;
mod project;
mod snapshot;
mod volume;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, IF_MATCH};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::RwLock;

pub use answer::Answer;
pub use instance::Instance;
pub use project::Project;
pub use snapshot::Snapshot;
pub use volume::Volume;

/// Longer than the longest wait of the API.
const TIMEOUT: Duration = Duration::from_secs(90);

/// What `--first-run-credentials` writes.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credentials {
    pub username: String,
    pub password: String,
}

/// A signed-in user of one cloud; cheap to clone.
#[derive(Clone)]
pub struct Cloud {
    url: String,
    http: reqwest::Client,
    credentials: Credentials,
    token: Arc<RwLock<HeaderValue>>,
}

impl Cloud {
    pub async fn login(url: &str, credentials: Credentials) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        let token = sign_in(&http, url, &credentials).await?;
        Ok(Self { url: url.to_owned(), http, credentials, token: Arc::new(RwLock::new(token)) })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, &HeaderMap::new(), None).await
    }

    /// The bytes of an answer that is no JSON.
    pub async fn get_bytes(&self, path: &str) -> Result<Vec<u8>> {
        let answer = self.request(Method::GET, path).await.send().await?.error_for_status()?;
        Ok(answer.bytes().await?.to_vec())
    }

    pub async fn post(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(Method::POST, path, &HeaderMap::new(), Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, &HeaderMap::new(), None).await
    }

    /// A change of whatever is there.
    pub async fn patch(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(Method::PATCH, path, &overwriting(), Some(body)).await
    }

    /// In place of whatever is there.
    pub async fn put(&self, path: &str, body: Value) -> Result<Answer> {
        self.send(Method::PUT, path, &overwriting(), Some(body)).await
    }

    /// Any call. Signs in anew when the access token has run out.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Option<Value>,
    ) -> Result<Answer> {
        let shown = self.token.read().await.clone();
        let first = self.send_once(method.clone(), path, headers, body.as_ref()).await?;
        if first.status != 401 {
            return Ok(first);
        }
        self.renew(&shown).await?;
        self.send_once(method, path, headers, body.as_ref()).await
    }

    /// Signs in for all clones at once: many sign-ins at a time look like guessing.
    async fn renew(&self, shown: &HeaderValue) -> Result<()> {
        let mut token = self.token.write().await;
        if *token == *shown {
            *token = sign_in(&self.http, &self.url, &self.credentials).await?;
        }
        Ok(())
    }

    async fn send_once(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let mut request = self.request(method.clone(), path).await.headers(headers.clone());
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::of(request.send().await, format!("{method} {path}")).await
    }

    /// A request with the address and the token filled in.
    pub(crate) async fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let token = self.token.read().await.clone();
        self.http.request(method, format!("{}{path}", self.url)).header(AUTHORIZATION, token)
    }

    /// A project of that name; made when it is not there yet.
    pub async fn project(&self, name: &str) -> Result<Project> {
        let answer = self.get(&format!("/v1/projects/{name}")).await?;
        if answer.status == 404 {
            self.post("/v1/projects", json!({"name": name})).await?.success()?;
        } else {
            answer.success()?;
        }
        Ok(Project { cloud: self.clone(), name: name.to_owned() })
    }

    /// An instance type of that name; made when it is not there yet.
    pub async fn instance_type(
        &self,
        name: &str,
        vcpus: u32,
        memory_mib: u32,
        root_disk_gib: u32,
    ) -> Result<()> {
        let answer = self.get(&format!("/v1/instance_types/{name}")).await?;
        if answer.status == 404 {
            let body = json!({
                "name": name, "vcpus": vcpus, "memory_mib": memory_mib, "root_disk_gib": root_disk_gib,
            });
            self.post("/v1/instance_types", body).await?.success()?;
            return Ok(());
        }
        answer.success().map(|_| ())
    }
}

fn overwriting() -> HeaderMap {
    HeaderMap::from_iter([(IF_MATCH, HeaderValue::from_static("*"))])
}

async fn sign_in(http: &reqwest::Client, url: &str, credentials: &Credentials) -> Result<HeaderValue> {
    let path = "/v1/auth/login";
    let sent = http.post(format!("{url}{path}")).json(credentials).send().await;
    let answer = Answer::of(sent, format!("POST {path}")).await?.success()?;
    let token = answer["access_token"].as_str().context("the login answer has no access_token")?;
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))?;
    header.set_sensitive(true);
    Ok(header)
}
