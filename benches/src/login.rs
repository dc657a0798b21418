//! B6: sign-ins with a password, beside bare Argon2 with the same parameters, 8 at once.
//!
//! Each client is a user of its own: sign-ins of one user at the same time count as failed until they have succeeded.
//! The peer checks the same kind of hash on as many threads as the machine has processors, which is also how
//! many the API lets work at a time.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use lab::Credentials;
use serde_json::json;

use crate::compare::{Series, report};
use crate::memory::peak_mib;
use crate::site::Site;

const CLIENTS: usize = 8;
const ROUND: Duration = Duration::from_secs(4);

pub(crate) async fn run(site: &Site, rounds: usize) -> Result<()> {
    site.require_no_rate_limit().await?;
    let users = make_users(site).await?;
    let measured = measure(site, &users, rounds).await;
    remove_users(site, &users).await?;
    measured
}

async fn measure(site: &Site, users: &[Credentials], rounds: usize) -> Result<()> {
    let mut ours = Series::new("POST /v1/auth/login");
    let mut peer = Series::new("Argon2id, 19 MiB, t=2, p=1");
    for _ in 0..rounds {
        ours.values.push(sign_ins(site, users).await?);
        peer.values.push(tokio::task::spawn_blocking(bare).await??);
    }
    report("b6", "sign-ins/s", &ours, &peer)?;
    println!("most memory of cumulo-api since it started: {:.0} MiB", peak_mib("cumulo-api")?);
    Ok(())
}

async fn make_users(site: &Site) -> Result<Vec<Credentials>> {
    let mut users = Vec::new();
    for number in 0..CLIENTS {
        let username = format!("bench-b6-{}-{number}", std::process::id());
        let password = "correct horse battery".to_owned();
        site.cloud.post("/v1/users", json!({"name": username, "password": password})).await?.success()?;
        users.push(Credentials { username, password });
    }
    Ok(users)
}

async fn remove_users(site: &Site, users: &[Credentials]) -> Result<()> {
    for user in users {
        site.cloud.delete(&format!("/v1/users/{}", user.username)).await?.success()?;
    }
    Ok(())
}

/// Sign-ins per second.
async fn sign_ins(site: &Site, users: &[Credentials]) -> Result<f64> {
    let started = Instant::now();
    let clients = users.iter().map(|user| async {
        let mut done = 0_u64;
        while started.elapsed() < ROUND {
            let body = json!({"username": user.username, "password": user.password});
            site.cloud.post("/v1/auth/login", body).await?.success()?;
            done += 1;
        }
        anyhow::Ok(done)
    });
    let done: u64 = futures_util::future::try_join_all(clients).await?.into_iter().sum();
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// Checks of a password per second.
fn bare() -> Result<f64> {
    let params = Params::new(19_456, 2, 1, None).map_err(|error| anyhow!("{error}"))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash =
        argon2.hash_password(b"correct horse battery").map_err(|error| anyhow!("{error}"))?.to_string();
    let started = Instant::now();
    let check = || {
        let stored = PasswordHash::new(&hash).map_err(|error| anyhow!("{error}"))?;
        let mut done = 0_u64;
        while started.elapsed() < ROUND {
            argon2.verify_password(b"correct horse battery", &stored).map_err(|error| anyhow!("{error}"))?;
            done += 1;
        }
        anyhow::Ok(done)
    };
    let threads = available_parallelism().context("count the processors")?.get();
    let done = std::thread::scope(|scope| {
        let checks: Vec<_> = (0..threads).map(|_| scope.spawn(check)).collect();
        checks
            .into_iter()
            .map(|check| check.join().map_err(|_| anyhow!("a thread panicked"))?)
            .sum::<Result<u64>>()
    })?;
    Ok(done as f64 / started.elapsed().as_secs_f64())
}
