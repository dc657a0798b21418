//! A project: images, instances, volumes and snapshots.

use anyhow::{Context, Result, ensure};
use camino::Utf8Path;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Cloud, Instance, Snapshot, Volume};

#[derive(Clone)]
pub struct Project {
    pub cloud: Cloud,
    pub name: String,
}

impl Project {
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/projects/{}{rest}", self.name)
    }

    /// Uploads a qcow2 image under this name, unless it is there and usable already.
    pub async fn image(&self, name: &str, file: &Utf8Path) -> Result<Value> {
        let path = self.path(&format!("/images/{name}"));
        let answer = self.cloud.get(&path).await?;
        let image = if answer.status == 404 {
            let body = json!({"name": name, "format": "qcow2"});
            self.cloud.post(&self.path("/images"), body).await?.success()?
        } else {
            answer.success()?
        };
        if image["state"] != "available" {
            self.upload(&path, file).await?.success()?;
        }
        let image = self.cloud.get(&path).await?.success()?;
        ensure!(image["state"] == "available", "the image {name} is {} after its upload", image["state"]);
        Ok(image)
    }

    /// Sends a file as the content of the image at `path`.
    pub async fn upload(&self, path: &str, file: &Utf8Path) -> Result<Answer> {
        let opened = tokio::fs::File::open(file).await.with_context(|| format!("open {file}"))?;
        let length = opened.metadata().await?.len();
        let path = format!("{path}/content");
        let request = self.cloud.request(Method::PUT, &path).await.header("content-length", length);
        let request = request.header("content-type", "application/octet-stream");
        Answer::of(request.body(opened).send().await, format!("PUT {path}")).await
    }

    /// Asks for an instance; returns as soon as it is accepted.
    pub async fn create(&self, body: Value) -> Result<Instance> {
        let instance = self.cloud.post(&self.path("/instances"), body).await?.expect(202)?;
        self.instance(&instance)
    }

    /// The handle of an instance from its JSON.
    pub fn instance(&self, body: &Value) -> Result<Instance> {
        let text = |field: &str| body[field].as_str().map(str::to_owned);
        Ok(Instance {
            project: self.clone(),
            id: text("id").with_context(|| format!("no id in {body}"))?,
            name: text("name").with_context(|| format!("no name in {body}"))?,
        })
    }

    /// Makes a volume from whatever the body says.
    pub async fn volume(&self, body: Value) -> Result<Volume> {
        let volume = self.cloud.post(&self.path("/volumes"), body).await?.expect(201)?;
        self.volume_of(&volume)
    }

    /// The handle of a volume from its JSON.
    pub fn volume_of(&self, body: &Value) -> Result<Volume> {
        let text = |field: &str| {
            body[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {body}"))
        };
        Ok(Volume { project: self.clone(), id: text("id")?, name: text("name")?, serial: text("serial")? })
    }

    /// Takes a snapshot; returns as soon as it is accepted.
    pub async fn snapshot(&self, body: Value) -> Result<Snapshot> {
        let snapshot = self.cloud.post(&self.path("/snapshots"), body).await?.success()?;
        let text = |field: &str| {
            snapshot[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {snapshot}"))
        };
        Ok(Snapshot { project: self.clone(), id: text("id")?, name: text("name")? })
    }

    /// Every instance of the project, over all pages.
    pub async fn instances(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page =
                self.cloud.get(&self.path(&format!("/instances?limit=100{cursor}"))).await?.success()?;
            all.extend(page["items"].as_array().into_iter().flatten().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }
}
