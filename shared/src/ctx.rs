//! Everything that a function reaches, behind objects, passed by reference.

use crate::bus::Bus;
use crate::config::Config;
use crate::net::Net;
use crate::queue::Queue;
use crate::secrets::Secrets;
use crate::store::{Key, Store};
use crate::sync::budget::Held;
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rand::RngCore;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use uuid::Uuid;

/// Time and randomness, so that a simulation can hold both.
#[async_trait]
pub trait Clock: Send + Sync {
    fn now(&self) -> DateTime<Utc>;
    /// Returns once `duration` has passed.
    async fn sleep(&self, duration: Duration);
    /// Fills `bytes` with random bytes fit for keys.
    fn random(&self, bytes: &mut [u8]);
}

/// The clock and the random numbers of the operating system.
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn random(&self, bytes: &mut [u8]) {
        rand::rng().fill_bytes(bytes);
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

    /// A UUIDv7 (RFC 9562) of now.
    pub fn uuid(&self) -> Uuid {
        let millis = u64::try_from(self.now().timestamp_millis()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.random()).into_uuid()
    }
}
