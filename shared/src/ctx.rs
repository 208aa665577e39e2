//! Everything that a function reaches, behind objects, passed by reference.

use crate::bus::Bus;
use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::net::{Limits, Net};
use crate::providers::certificate::Certificates;
use crate::queue::Queue;
use crate::secrets::Secrets;
use crate::store::recent::Recent;
use crate::store::{Key, Store};
use crate::sync::budget::Held;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rand::RngCore;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use url::Url;
use uuid::Uuid;

/// Time and randomness, so that a simulation can hold both.
#[async_trait]
pub trait Clock: Send + Sync {
    fn now(&self) -> DateTime<Utc>;
    /// Returns once `duration` has passed.
    async fn sleep(&self, duration: Duration);
    /// Fills `bytes` with random bytes fit for keys.
    fn random(&self, bytes: &mut [u8]);

    /// How much time has passed since some moment. Unlike [`Clock::now`] it never jumps. Where it stands
    /// still, as in a simulation without it, pauses alone are counted.
    fn passed(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns once `duration` has passed, for whoever watches over something that takes time by itself. Where
    /// time passes only when somebody sleeps, nothing takes too long.
    async fn alarm(&self, _duration: Duration) {
        std::future::pending().await
    }

    /// How long the function may still go on with what it does now; `None` when nobody has said.
    fn left(&self) -> Option<Duration> {
        None
    }

    /// The function begins with something for which it has until `deadline`.
    fn begin(&self, _deadline: DateTime<Utc>) {}
}

/// A function has more time than this when it begins, and less than that (Lambda allows 15 minutes). What
/// the clock makes of a deadline otherwise is the fault of the clock.
const LEFT_LEAST: Duration = Duration::from_secs(5);
const LEFT_MOST: Duration = Duration::from_secs(900);

/// The clock and the random numbers of the operating system.
pub struct SystemClock {
    started: Instant,
    /// When the function is ended from outside. A process does one thing at a time.
    ends: Mutex<Option<Instant>>,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock {
            started: Instant::now(),
            ends: Mutex::default(),
        }
    }
}

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    async fn alarm(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
    }

    fn passed(&self) -> Duration {
        self.started.elapsed()
    }

    fn left(&self) -> Option<Duration> {
        let ends = *self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        Some(ends?.saturating_duration_since(Instant::now()))
    }

    fn begin(&self, deadline: DateTime<Utc>) {
        let left = (deadline - self.now()).to_std().ok();
        let left = left.filter(|left| (LEFT_LEAST..=LEFT_MOST).contains(left));
        let ends = left.map(|left| Instant::now() + left);
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }
}

pub struct Ctx {
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub store: Arc<dyn Store>,
    pub secrets: Arc<dyn Secrets>,
    pub net: Arc<dyn Net>,
    pub queue: Arc<dyn Queue>,
    pub bus: Arc<dyn Bus>,
    /// What this process holds of the providers' budgets, by the row that all processes share.
    pub budgets: Mutex<HashMap<Key, Held>>,
    /// The certificates by which providers sign, by where they stand.
    pub certificates: Mutex<HashMap<Url, Certificates>>,
    /// What this process has read a moment ago.
    pub recent: Recent,
}

impl Ctx {
    /// Now, to the millisecond: what is stored reads back the same.
    pub fn now(&self) -> DateTime<Utc> {
        chrono::SubsecRound::trunc_subsecs(self.clock.now(), 3)
    }

    /// `N` random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.clock.random(&mut bytes);
        bytes
    }

    /// `limits` for a call that has to end while `after` is left of the function's time, for what follows it.
    ///
    /// # Errors
    /// [`Code::Busy`] when that leaves less than `least`: then nothing is begun, since it could be cut off.
    pub fn within(&self, limits: Limits, least: Duration, after: Duration) -> Result<Limits> {
        let Some(left) = self.clock.left() else {
            return Ok(limits);
        };
        let total = limits.total.min(left.saturating_sub(after));
        if total < least {
            let detail = "there is too little time left for this; send it again";
            return Err(Error::new(Code::Busy, detail));
        }
        Ok(Limits { total, ..limits })
    }

    /// A UUIDv7 (RFC 9562) of now.
    pub fn uuid(&self) -> Uuid {
        let millis = u64::try_from(self.now().timestamp_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.random()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_the_deadline_says_unless_the_clock_is_wrong() {
        let clock = SystemClock::default();
        assert_eq!(clock.left(), None);
        for (seconds, known) in [
            (-600, false),
            (1, false),
            (29, true),
            (90, true),
            (1_200, false),
        ] {
            clock.begin(clock.now() + chrono::TimeDelta::seconds(seconds));
            let left = clock.left();
            assert_eq!(left.is_some(), known, "{seconds} s");
            let whole = Duration::from_secs(seconds.unsigned_abs());
            assert!(left.is_none_or(|left| left <= whole && left + Duration::from_secs(1) > whole));
        }
        let before = clock.passed();
        assert!(clock.passed() >= before);
    }
}
