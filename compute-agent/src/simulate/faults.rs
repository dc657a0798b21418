//! What goes wrong in a fleet, on purpose.

use std::str::FromStr;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use thiserror::Error;

/// See the module. As a text: `failing-creates=5%,restart=10m,silence=10m/40s`, each part at most once.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The share of starts that are refused, from 0 to 1.
    pub failing_creates: f64,
    /// How often each agent is started anew, on average.
    pub restart: Option<Duration>,
    /// How often nothing is heard of each agent, on average, and for how long.
    pub silence: Option<(Duration, Duration)>,
}

/// A text does not say what goes wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not one of failing-creates=5%, restart=10m, silence=10m/40s, each at most once")]
pub struct ParseFaultsError(String);

impl FromStr for Faults {
    type Err = ParseFaultsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut faults = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            faults.add(part).ok_or_else(|| ParseFaultsError(part.to_owned()))?;
        }
        Ok(faults)
    }
}

impl Faults {
    fn add(&mut self, part: &str) -> Option<()> {
        let often = |text| duration(text).ok().filter(|every| !every.is_zero());
        match part.split_once('=')? {
            ("failing-creates", share) if self.failing_creates == 0.0 => {
                let percent: f64 = share.strip_suffix('%')?.parse().ok()?;
                // All of them would be a fleet on which nothing ever runs.
                self.failing_creates = (0.0..100.0).contains(&percent).then_some(percent / 100.0)?;
            }
            ("restart", every) if self.restart.is_none() => self.restart = Some(often(every)?),
            ("silence", text) if self.silence.is_none() => {
                let (every, lasts) = text.split_once('/')?;
                self.silence = Some((often(every)?, often(lasts)?));
            }
            _ => return None,
        }
        Some(())
    }
}

/// Until something happens that happens so often on average; never, without that.
pub(super) fn until_next(every: Option<Duration>, dice: &mut StdRng) -> Option<Duration> {
    // Evenly around the average: no host is spared for ever.
    every.map(|every| every.mul_f64(dice.random_range(0.2..1.8)))
}

/// `500ms`, `2s`, `10m`, `1h`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let number = number.parse::<u32>().ok().filter(|_| milliseconds > 0);
    let number = number.ok_or_else(|| "a time looks like 500ms, 2s, 10m or 1h".to_owned())?;
    Ok(Duration::from_millis(u64::from(number) * milliseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_and_what_is_none_is_refused() {
        assert_eq!("".parse(), Ok(Faults::default()));
        let all = Faults {
            failing_creates: 0.05,
            restart: Some(Duration::from_secs(600)),
            silence: Some((Duration::from_secs(3600), Duration::from_millis(1500))),
        };
        assert_eq!("failing-creates=5%, restart=10m,silence=1h/1500ms".parse(), Ok(all));
        for bad in [
            "failing-creates=5",
            "failing-creates=100%",
            "failing-creates=-1%",
            "failing-creates=NaN%",
            "restart",
            "restart=0s",
            "restart=1d",
            "restart=1m,restart=2m",
            "silence=1m",
            "silence=1m/",
            "fire=1m",
        ] {
            assert!(bad.parse::<Faults>().is_err(), "{bad}");
        }
    }
}
