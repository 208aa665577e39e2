//! HTTP requests and responses as values: a provider builds and reads them, one client sends them.

use secrecy::SecretString;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
        }
    }
}

/// How a request proves who sends it. Kept apart from the headers so that it cannot be printed.
#[derive(Debug, Clone)]
pub enum Authorization {
    None,
    Bearer(SecretString),
    Basic {
        user: String,
        password: SecretString,
    },
    /// Headers of the provider's own.
    Headers(Vec<(&'static str, SecretString)>),
}

/// One outbound request.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: Method,
    pub url: url::Url,
    pub headers: Vec<(String, String)>,
    pub authorization: Authorization,
    pub body: Vec<u8>,
}

impl Request {
    pub fn new(method: Method, url: url::Url) -> Self {
        Request {
            method,
            url,
            headers: Vec::new(),
            authorization: Authorization::None,
            body: Vec::new(),
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub fn authorized(mut self, authorization: Authorization) -> Self {
        self.authorization = authorization;
        self
    }

    /// A form body (`application/x-www-form-urlencoded`).
    pub fn form(self, members: &[(&str, &str)]) -> Self {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(members);
        self.body("application/x-www-form-urlencoded", form.finish())
    }

    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }
}

/// One answer, read whole within the client's limits.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}
