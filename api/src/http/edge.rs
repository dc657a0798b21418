//! What the operator says about the world outside: which proxies to believe, and how much to take.

use super::limits::{Limits, RateOptions, Ticks};
use crate::net::TrustedProxies;

/// Options of `cumulo-api serve`.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct EdgeOptions {
    /// Addresses and networks of proxies, separated by commas, whose X-Forwarded-For and X-Forwarded-Proto
    /// are believed.
    #[arg(long, env = "CUMULO_TRUSTED_PROXIES", default_value = "", hide_default_value = true)]
    pub trusted_proxies: TrustedProxies,
    #[command(flatten)]
    pub rates: RateOptions,
}

/// What the outermost layers of every request need.
pub struct Edge {
    pub(super) trusted_proxies: TrustedProxies,
    pub(crate) limits: Limits,
}

impl Edge {
    pub fn new(options: &EdgeOptions, ticks: &Ticks) -> Self {
        Self { trusted_proxies: options.trusted_proxies.clone(), limits: Limits::new(&options.rates, ticks) }
    }
}
