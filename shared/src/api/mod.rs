//! The HTTP API: one module per resource, each the whole of one function.

pub mod auth;
pub mod connect_pages;
pub mod default;
pub mod events;
pub mod hooks;
pub mod integrations;
pub mod merchants;
pub mod openapi;
pub mod problem;
pub mod routes;
pub mod webhooks;

use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::ids::{IdError, MerchantId};
use crate::model::wire;
use crate::portal;
use futures::future::BoxFuture;
use secrecy::SecretString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most bytes of a request's body.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// One request, free of any transport.
#[derive(Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub cookies: BTreeMap<String, String>,
    /// By their names in lower case, without what stands in the members beside.
    pub headers: BTreeMap<String, String>,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<SecretString>,
    pub body: Vec<u8>,
    pub id: String,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

/// A function behind the API.
pub type Handler = for<'a> fn(&'a Ctx, &'a Request) -> BoxFuture<'a, Result<Response>>;

impl Response {
    pub fn json(status: u16, body: &impl Serialize) -> Result<Response> {
        Ok(Response {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: serde_json::to_string(body).map_err(Error::internal)?,
        })
    }

    /// A page of `portal`.
    pub fn html(status: u16, body: String) -> Response {
        let policy = portal::CONTENT_SECURITY_POLICY.to_owned();
        Response {
            status,
            headers: vec![
                ("content-type", "text/html; charset=utf-8".to_owned()),
                ("content-security-policy", policy),
            ],
            body,
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}

impl Request {
    /// The parts of the path: `/api/v1/merchants/demo` is `["api", "v1", "merchants", "demo"]`.
    pub fn segments(&self) -> Vec<&str> {
        self.path
            .split('/')
            .filter(|part| !part.is_empty())
            .collect()
    }

    /// The body as JSON, if it is not too large.
    pub fn json(&self) -> Result<Value> {
        if self.body.len() > BODY_BYTES_MAX {
            return Err(Error::new(
                Code::PayloadTooLarge,
                format!(
                    "the body has {} bytes and at most {BODY_BYTES_MAX} are taken; send less at once",
                    self.body.len()
                ),
            ));
        }
        wire::parse(&self.body)
    }

    /// The body as a `T`.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        wire::read(self.json()?).map_err(|fault| Error::invalid(vec![fault]))
    }

    /// The merchant that a reading request names in its query.
    pub fn merchant_id(&self) -> Result<MerchantId> {
        let fault = |code, detail: String| {
            Error::invalid(vec![FieldError::new("/merchant_id", code, detail)])
        };
        let text = self.query.get("merchant_id").ok_or_else(|| {
            fault(
                "missing_field",
                "name the merchant: ?merchant_id=…".to_owned(),
            )
        })?;
        text.parse()
            .map_err(|error| fault("invalid_value", format!("{error}")))
    }

    /// How many the caller wants on one page: `limit` of the query, from 1 to `max`.
    pub fn limit(&self, default: usize, max: usize) -> Result<usize> {
        match self.query.get("limit").map(|text| text.parse::<usize>()) {
            None => Ok(default),
            Some(Ok(limit)) if (1..=max).contains(&limit) => Ok(limit),
            Some(_) => Err(Error::invalid(vec![FieldError::new(
                "/limit",
                "invalid_value",
                format!("limit is a number from 1 to {max}"),
            )])),
        }
    }

    /// The refusal of a path or method that a function does not serve.
    pub fn unknown(&self) -> Error {
        let methods = routes::methods(&self.path);
        if methods.is_empty() || methods.contains(&self.method.as_str()) {
            return Error::new(
                Code::NotFound,
                format!("nothing is served at {} {}", self.method, self.path),
            );
        }
        Error::new(
            Code::MethodNotAllowed,
            format!(
                "{} takes {}, and not {}",
                self.path,
                methods.join(" and "),
                self.method
            ),
        )
    }
}

/// Reads an id out of a path. What is no id cannot exist.
pub fn path_id<T: std::str::FromStr<Err = IdError>>(text: &str) -> Result<T> {
    text.parse()
        .map_err(|error| Error::new(Code::NotFound, format!("nothing is here: {error}")))
}

/// A list that is whole: the resources here have no second page.
pub fn whole_list(data: Vec<Value>) -> Value {
    json!({ "data": data, "has_more": false, "next_cursor": null, "prev_cursor": null })
}
