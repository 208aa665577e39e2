//! The platform's own secrets, in Secrets Manager: few, and kept in memory for a while.

use crate::error::{Error, Result};
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long a secret is used before it is read again, so that a rotation reaches every function.
pub const SECRET_AGE_MAX: Duration = Duration::from_secs(300);
/// A secret younger than this is fresh, so that nobody can make us read in a loop.
const SECRET_AGE_FRESH: Duration = Duration::from_secs(5);

#[async_trait]
pub trait Secrets: Send + Sync {
    /// The current value of the secret `id` (name or ARN).
    async fn get(&self, id: &str) -> Result<SecretString>;

    /// The same, read again unless it was read a moment ago.
    async fn get_fresh(&self, id: &str) -> Result<SecretString>;

    /// Stores `new` in place of `old`; fails when somebody else has replaced `old` already.
    async fn replace(&self, id: &str, old: &SecretString, new: &SecretString) -> Result<()>;
}

pub struct SecretsManager {
    client: aws_sdk_secretsmanager::Client,
    held: Mutex<HashMap<String, (Instant, SecretString)>>,
}

impl SecretsManager {
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        let client = aws_sdk_secretsmanager::Client::new(config);
        SecretsManager {
            client,
            held: Mutex::default(),
        }
    }
}

impl SecretsManager {
    async fn get_younger(&self, id: &str, age: Duration) -> Result<SecretString> {
        let held = self.held.lock().map_or(None, |held| held.get(id).cloned());
        if let Some((read_at, value)) = held
            && read_at.elapsed() < age
        {
            return Ok(value);
        }
        let answer = self
            .client
            .get_secret_value()
            .secret_id(id)
            .send()
            .await
            .map_err(Error::internal)?;
        let text = answer
            .secret_string
            .ok_or_else(|| Error::internal(format!("secret {id} holds no text")))?;
        let value = SecretString::from(text);
        self.hold(id, &value);
        Ok(value)
    }

    /// Stores a value whatever stands there: for an operator, who knows.
    pub async fn put(&self, id: &str, value: &SecretString) -> Result<()> {
        self.client
            .put_secret_value()
            .secret_id(id)
            .secret_string(value.expose_secret())
            .send()
            .await
            .map_err(Error::internal)?;
        self.hold(id, value);
        Ok(())
    }

    fn hold(&self, id: &str, value: &SecretString) {
        if let Ok(mut held) = self.held.lock() {
            held.insert(id.to_owned(), (Instant::now(), value.clone()));
        }
    }
}

#[async_trait]
impl Secrets for SecretsManager {
    async fn get(&self, id: &str) -> Result<SecretString> {
        self.get_younger(id, SECRET_AGE_MAX).await
    }

    async fn get_fresh(&self, id: &str) -> Result<SecretString> {
        self.get_younger(id, SECRET_AGE_FRESH).await
    }

    async fn replace(&self, id: &str, old: &SecretString, new: &SecretString) -> Result<()> {
        // Secrets Manager has no conditions, but it refuses a second value under a token that it
        // knows. The token follows from the old value, so the old value is replaced once.
        let mut token = Sha256::new_with_prefix("crossdock successor v1:");
        token.update(old.expose_secret().as_bytes());
        let token = token.finalize();
        let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
        self.client
            .put_secret_value()
            .secret_id(id)
            .client_request_token(token)
            .secret_string(new.expose_secret())
            .send()
            .await
            .map_err(Error::internal)?;
        self.hold(id, new);
        Ok(())
    }
}
