//! Imports: work that goes on after the answer, on whichever replica takes it.
//!
//! ```text
//! call            the image is `importing`; a row of image_imports; an operation
//! claim           a replica takes the oldest row with a lease of a minute and announces a blob of this attempt
//! no transaction  fetch, hash and inspect; every two seconds a transaction renews the lease and notes the progress
//! end             keep the blob and fill the image, or give the reason; the row goes, the operation ends
//! ```
//!
//! A replica that dies leaves a lease that runs out, and the next one starts anew with another blob. Cancelling
//! removes the row; the attempt notices that it has lost it. Finishing an upload in parts is an import too, whose
//! source are the parts. So is making an image of a disk ([`delivery`]): the host that has the disk makes the attempts.

mod certificate;
pub(crate) mod delivery;
mod download;
mod fetch;
mod guard;
mod job;
mod options;
mod source;

use std::sync::Arc;

#[cfg(test)]
pub(crate) use fetch::Resolver;
pub use options::ImportOptions;

use anyhow::Context;
use ipnet::IpNet;
use reqwest::{Certificate, Url};

use self::fetch::Fetcher;
use self::guard::Guard;
use self::job::Job;
use super::receiver::MAX_FILE_BYTES;
use super::store::imports;
use crate::app::App;

/// How this replica imports.
pub struct Importer {
    pub(super) options: ImportOptions,
    certificates: Vec<Certificate>,
    resolver: fetch::Resolver,
    /// The largest file.
    max_bytes: u64,
}

impl Importer {
    /// # Errors
    /// When the file of certificates cannot be read, or holds none.
    pub fn new(options: ImportOptions) -> anyhow::Result<Self> {
        let certificates = match &options.import_ca {
            Some(path) => {
                let pem = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
                let found = Certificate::from_pem_bundle(&pem);
                let found = found.with_context(|| format!("{path} holds no certificates"))?;
                anyhow::ensure!(!found.is_empty(), "{path} holds no certificates");
                // Each is looked at only when a connection is prepared.
                let client = reqwest::Client::builder().tls_certs_merge(found.clone()).build();
                client.with_context(|| format!("{path} holds what is no certificate"))?;
                found
            }
            None => Vec::new(),
        };
        Ok(Self { options, certificates, resolver: fetch::system_resolver(), max_bytes: MAX_FILE_BYTES })
    }

    /// The same, with another way to look up names, and for small files.
    #[cfg(test)]
    pub(crate) fn for_tests(options: ImportOptions, resolver: Resolver, max_bytes: u64) -> Self {
        Self { resolver, max_bytes, ..Self::new(options).unwrap() }
    }

    /// Imports at the same time.
    pub(crate) fn at_once(&self) -> u16 {
        self.options.imports_at_once
    }

    /// How long an import may take.
    pub(super) fn longest(&self) -> time::Duration {
        self.options.longest()
    }

    fn fetcher(&self, mut own: Vec<IpNet>) -> Fetcher {
        own.extend(guard::own_addresses());
        Fetcher {
            guard: Guard { allowed: self.options.import_networks.clone(), own },
            http: self.options.import_http,
            silence: self.options.silence(),
            certificates: self.certificates.clone(),
            resolver: Arc::clone(&self.resolver),
        }
    }

    /// What is wrong with an URL, as far as can be told without asking anybody.
    pub(super) fn check(&self, url: &str) -> Result<Url, String> {
        let url = source::check_url(url, self.options.import_http)?;
        let guard = Guard { allowed: self.options.import_networks.clone(), own: Vec::new() };
        match source::literal(&url).and_then(|address| guard.objection(address)) {
            Some(objection) => {
                Err(format!("the address is {objection}; an operator can allow it with --import-networks"))
            }
            None => Ok(url),
        }
    }
}

/// Imports one image after the other until none waits. Any replica may run it, several times at once.
pub(crate) async fn run_imports(app: &App) -> Result<(), sqlx::Error> {
    imports::settle(&app.pool, app.clock.now()).await?;
    while !app.shutdown.is_cancelled() {
        let Some(job) = claim(app).await? else { break };
        // The futures of an attempt are large.
        Box::pin(job.run(None)).await?;
    }
    Ok(())
}

async fn claim(app: &App) -> Result<Option<Job>, sqlx::Error> {
    let now = app.clock.now();
    let mut tx = app.begin().await?;
    let claimed = imports::claim(&mut tx, app.clock.new_id(), now, now + job::LEASE).await?;
    tx.commit().await?;
    Ok(claimed.map(|claimed| Job { app: app.clone(), claimed }))
}
