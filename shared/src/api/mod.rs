//! The HTTP API: one module per resource, each the whole of one function.

pub mod auth;
mod books;
pub mod connect_pages;
pub mod default;
pub mod events;
pub mod hooks;
pub mod integrations;
pub mod merchants;
pub mod openapi;
pub mod problem;
pub mod records;
mod report;
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

/// So much of the name of a parameter that nobody knows is repeated.
const PARAMETER_CHARACTERS_MAX: usize = 64;

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

    /// An answer that carries a secret, which nobody between may keep.
    pub fn private(self) -> Response {
        self.header("cache-control", "no-store")
    }

    /// A page of a merchant's way to a provider, whose address and content are his alone.
    pub fn private_html(status: u16, body: String) -> Response {
        let page = Response::html(status, body).private();
        page.header("referrer-policy", "no-referrer")
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

    /// Refuses a path that is spelt otherwise than the table of addresses has it, with a slash too many for
    /// one, which the gateway may have handed to a function all the same.
    pub fn check_path(&self) -> Result<()> {
        match routes::methods(&self.path).is_empty() {
            true => Err(self.unknown()),
            false => Ok(()),
        }
    }

    /// Refuses parameters of the query that the operation at this address does not know: whoever sends
    /// one means something by it, and would not hear that it was ignored. A browser's way is left alone,
    /// since providers and links may bring parameters of their own.
    pub fn check_query(&self) -> Result<()> {
        let Some(route) = routes::find(&self.method, &self.path) else {
            return Ok(());
        };
        let Some(known) = openapi::query(route) else {
            return Ok(());
        };
        let unknown = self
            .query
            .keys()
            .filter(|name| !known.contains(&name.as_str()));
        let faults = unknown.map(|name| {
            let name: String = name.chars().take(PARAMETER_CHARACTERS_MAX).collect();
            let detail = match known {
                [] => {
                    format!("there is no parameter {name}; this operation takes none in its query")
                }
                known => format!(
                    "there is no parameter {name}; known are {}",
                    known.join(", ")
                ),
            };
            let path = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            FieldError::new(&path, "unknown_parameter", detail)
        });
        match faults.collect::<Vec<_>>() {
            none if none.is_empty() => Ok(()),
            faults => Err(Error::invalid(faults)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation takes the parameters that the document lists, and no other.
    #[test]
    fn the_document_says_which_parameters_there_are() {
        let document = openapi::document();
        let (mut taken, mut exempt) = (0, 0);
        for route in &routes::ROUTES {
            let listed = &document["paths"][route.path][route.method.to_lowercase()]["parameters"];
            let names = listed.as_array().unwrap().iter();
            let names = names.map(|one| one["$ref"].as_str().unwrap());
            let names: Vec<&str> = names
                .filter_map(|name| Some(name.split_once("/query_")?.1))
                .collect();
            let ask = |query: &[&str]| {
                let request = Request {
                    method: route.method.to_owned(),
                    path: route.path.replace(['{', '}'], ""),
                    query: query
                        .iter()
                        .map(|name| ((*name).to_owned(), "x".to_owned()))
                        .collect(),
                    ..Request::default()
                };
                request.check_query()
            };
            assert!(ask(&names).is_ok(), "{} {}", route.method, route.path);
            let others = ["/connect/", "/oauth/", "/hooks/"]
                .iter()
                .any(|way| route.path.starts_with(way));
            let more: Vec<&str> = names.iter().copied().chain(["co/lour"]).collect();
            match ask(&more) {
                Ok(()) => {
                    assert!(others, "{} {}", route.method, route.path);
                    exempt += 1;
                }
                Err(error) => {
                    assert!(!others && error.code() == Code::ValidationFailed);
                    let [fault] = error.fields() else {
                        panic!("{error:?}")
                    };
                    assert_eq!(
                        (fault.pointer.as_str(), fault.code),
                        ("#/co~1lour", "unknown_parameter")
                    );
                    let known = if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    };
                    assert!(
                        fault.detail.contains("co/lour") && fault.detail.contains(&known),
                        "{fault:?}"
                    );
                    taken += 1;
                }
            }
        }
        assert!(taken > 20 && exempt > 2, "{taken} and {exempt} were tried");
        // What is not served is refused for that.
        let elsewhere = Request {
            method: "GET".to_owned(),
            path: "/nothing".to_owned(),
            query: [("colour".to_owned(), "red".to_owned())].into(),
            ..Request::default()
        };
        assert!(elsewhere.check_query().is_ok());
    }

    #[test]
    fn a_path_is_served_in_one_form() {
        let ask = |method: &str, path: &str| {
            let request = Request {
                method: method.to_owned(),
                path: path.to_owned(),
                ..Request::default()
            };
            request.check_path().map_err(|error| error.code())
        };
        for route in &routes::ROUTES {
            let path = route.path.replace(['{', '}'], "");
            // Whoever serves the path says which methods it takes.
            for method in [route.method, "PATCH"] {
                assert_eq!(ask(method, &path), Ok(()), "{path}");
            }
            for other in [format!("/{path}"), format!("{path}/"), format!("/x{path}")] {
                assert_eq!(ask(route.method, &other), Err(Code::NotFound), "{other}");
            }
            let capital = path.replacen(|c: char| c.is_ascii_lowercase(), "X", 1);
            assert_eq!(
                ask(route.method, &capital),
                Err(Code::NotFound),
                "{capital}"
            );
        }
    }

    #[test]
    fn an_entry_is_written_in_one_form() {
        let id = "019ab2c3-d4e5-7f60-8a9b-0c1d2e3f4a5b";
        assert!(integrations::is_entry(id));
        let plain = id.replace('-', "");
        for other in [
            id.to_uppercase(),
            plain,
            format!("{{{id}}}"),
            format!("urn:uuid:{id}"),
            String::new(),
        ] {
            assert!(!integrations::is_entry(&other), "{other}");
        }
    }
}
