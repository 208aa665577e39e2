//! Customers and users.

use super::ids::RecordId;
use super::text::{check_email, check_time};
use crate::error::FieldError;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Who bought. A guest is the absence of a customer, never an invented one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Customer {
    pub id: RecordId,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

/// An account of the shop (`user.created`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub id: RecordId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    pub created_at: DateTime<Utc>,
}

impl User {
    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        check_email(&mut faults, "/email", self.email.as_ref());
        check_time(&mut faults, "/created_at", self.created_at);
        faults
    }
}
