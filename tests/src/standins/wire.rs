//! Requests and answers as all stand-ins read and write them.

use axum::http::{HeaderValue, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use url::Url;
use url::form_urlencoded::parse;

pub const JSON: &str = "application/json;charset=UTF-8";

pub type Reply = Response<Vec<u8>>;

pub fn reply(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Reply {
    let mut response = Response::new(body.into());
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn json_reply(status: u16, body: &Value) -> Reply {
    reply(status, JSON, body.to_string())
}

pub type Params = Vec<(String, String)>;

pub fn params(text: &[u8]) -> Params {
    parse(text).into_owned().collect()
}

pub fn param<'a>(params: &'a Params, name: &str) -> Option<&'a str> {
    params
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// A page that refuses to be framed, as consent pages do.
pub fn page(status: u16, title: &str, body: &str) -> Reply {
    let mut page = reply(
        status,
        "text/html;charset=UTF-8",
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n"
        ),
    );
    page.headers_mut()
        .insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    page
}

pub fn redirect(target: &Url) -> Reply {
    let mut found = reply(302, "text/html;charset=UTF-8", "");
    if let Ok(value) = HeaderValue::from_str(target.as_str()) {
        found.headers_mut().insert(header::LOCATION, value);
    }
    found
}

/// A token of three parts. Its signature is none: no key is published for it either, and nobody
/// but a vendor has a reason to check one that came straight from its token endpoint.
pub fn jwt(kind: &str, claims: &Value, signature: &str) -> String {
    let header = json!({"alg": "RS256", "kid": "STANDIN", "typ": kind});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", part(&header), part(claims))
}
