//! One error type. Every error answers three questions: which HTTP status, which public code,
//! and what a queue does with the message that met it.

use std::fmt;
use std::time::Duration;

/// Public error codes. The HTTP status, the title and whether a client may retry follow from the
/// code alone, so that the same failure looks the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    MalformedJson,
    ValidationFailed,
    Unauthenticated,
    SignatureRefused,
    NotFound,
    MethodNotAllowed,
    PayloadTooLarge,
    IdempotencyKeyReused,
    Conflict,
    LinkExpired,
    AuthorizationRefused,
    SessionMismatch,
    AddressRefused,
    FeatureDisabled,
    ConnectionReauthRequired,
    UpstreamFailed,
    UpstreamRefused,
    Busy,
    Internal,
}

impl Code {
    /// Every code, in the order in which the documentation lists them.
    pub const ALL: [Code; 19] = [
        Code::MalformedJson,
        Code::ValidationFailed,
        Code::Unauthenticated,
        Code::SignatureRefused,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::PayloadTooLarge,
        Code::IdempotencyKeyReused,
        Code::Conflict,
        Code::LinkExpired,
        Code::AuthorizationRefused,
        Code::SessionMismatch,
        Code::AddressRefused,
        Code::FeatureDisabled,
        Code::ConnectionReauthRequired,
        Code::UpstreamFailed,
        Code::UpstreamRefused,
        Code::Busy,
        Code::Internal,
    ];

    /// The code as it stands in a problem document.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status (RFC 9110) that carries this code.
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// Whether the same request, sent again unchanged, may succeed.
    pub const fn retryable(self) -> bool {
        self.row().2
    }

    /// The title of the problem type (RFC 9457 §3.1.4): constant for each code.
    pub const fn title(self) -> &'static str {
        self.row().3
    }

    const fn row(self) -> (&'static str, u16, bool, &'static str) {
        match self {
            Code::MalformedJson => ("malformed_json", 400, false, "The body is not valid JSON"),
            Code::ValidationFailed => ("validation_failed", 422, false, "The request is not valid"),
            Code::Unauthenticated => ("unauthenticated", 401, false, "A valid key is needed"),
            Code::SignatureRefused => (
                "signature_refused",
                401,
                false,
                "The signature of this webhook is not good",
            ),
            Code::NotFound => ("not_found", 404, false, "There is no such thing here"),
            Code::MethodNotAllowed => (
                "method_not_allowed",
                405,
                false,
                "This path does not take this method",
            ),
            Code::PayloadTooLarge => ("payload_too_large", 413, false, "The body is too large"),
            Code::IdempotencyKeyReused => (
                "idempotency_key_reused",
                409,
                false,
                "This id was used for another body",
            ),
            Code::Conflict => (
                "conflict",
                409,
                false,
                "The request conflicts with what is stored",
            ),
            Code::LinkExpired => (
                "link_expired",
                410,
                false,
                "This link can no longer be used",
            ),
            Code::AuthorizationRefused => (
                "authorization_refused",
                403,
                false,
                "The provider's consent was not given",
            ),
            Code::SessionMismatch => (
                "session_mismatch",
                403,
                false,
                "This browser did not start the connection",
            ),
            Code::AddressRefused => ("address_refused", 422, false, "This address is not allowed"),
            Code::FeatureDisabled => (
                "feature_disabled",
                403,
                false,
                "This part of the platform is switched off",
            ),
            Code::ConnectionReauthRequired => (
                "connection_reauth_required",
                424,
                false,
                "The connection must be renewed",
            ),
            Code::UpstreamFailed => ("upstream_failed", 424, true, "Another service failed"),
            Code::UpstreamRefused => ("upstream_refused", 424, false, "Another service refused"),
            Code::Busy => ("busy", 503, true, "Too much is happening at once"),
            Code::Internal => ("internal", 500, true, "Something failed on our side"),
        }
    }
}

/// What a queue does with the message whose handling failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Leave the message in the queue: it may succeed later.
    Retry,
    /// The cause does not go away by itself: it is shown in the ledger and the message is done.
    Park,
}

/// One field of a request that is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FieldError {
    /// RFC 6901 pointer into the request body, as a URI fragment: `#/data/lines/0/quantity`.
    pub pointer: String,
    /// A stable word for programs.
    pub code: &'static str,
    /// What is wrong and what to do, for people.
    pub detail: String,
}

impl FieldError {
    /// `path` is an RFC 6901 pointer without the leading `#`.
    pub fn new(path: &str, code: &'static str, detail: impl Into<String>) -> Self {
        FieldError {
            pointer: format!("#{path}"),
            code,
            detail: detail.into(),
        }
    }

    /// The same error, seen from an enclosing document in which this one stands at `prefix`.
    pub fn under(mut self, prefix: &str) -> Self {
        self.pointer = format!("#{prefix}{}", &self.pointer[1..]);
        self
    }
}

/// An error with a public face (code, detail, fields) and a private one (its source).
#[derive(Debug)]
pub struct Error {
    code: Code,
    detail: String,
    fields: Vec<FieldError>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `detail` is shown to the caller: it says what is wrong and what to do, and holds no secret.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Error {
            code,
            detail: detail.into(),
            fields: Vec::new(),
            retry_after: None,
            source: None,
        }
    }

    /// A request of which `fields` are not acceptable.
    pub fn invalid(fields: Vec<FieldError>) -> Self {
        let detail = match fields.as_slice() {
            [one] => one.detail.clone(),
            many => format!("{} fields are not valid", many.len()),
        };
        Error {
            code: Code::ValidationFailed,
            detail,
            fields,
            retry_after: None,
            source: None,
        }
    }

    pub fn not_found(what: impl fmt::Display) -> Self {
        Error::new(
            Code::NotFound,
            format!("{what} does not exist for this merchant"),
        )
    }

    /// A failure of ours or of AWS. The caller learns only that it happened; the log has the rest.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::new(
            Code::Internal,
            "the request was not completed; send it again",
        )
        .because(source)
    }

    /// Keeps the cause for the log.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Trying again before `wait` has passed is of no use. A queue sends the message away for so long,
    /// without counting it as a failure.
    pub fn later(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same error for another message that meets it too. The cause is kept as a line.
    pub fn again(&self) -> Error {
        Error {
            code: self.code,
            detail: self.detail.clone(),
            fields: self.fields.clone(),
            retry_after: self.retry_after,
            source: std::error::Error::source(self).map(|cause| cause.to_string().into()),
        }
    }

    /// How long to wait before trying again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    pub fn code(&self) -> Code {
        self.code
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    pub fn fields(&self) -> &[FieldError] {
        &self.fields
    }

    /// What a queue does with the message that met this error.
    pub fn disposition(&self) -> Disposition {
        if self.code.retryable() {
            Disposition::Retry
        } else {
            Disposition::Park
        }
    }

    /// The whole chain in one line, for the log.
    pub fn chain(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|s| s.as_ref() as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_documented() {
        let documented = include_str!("../../docs/errors.md");
        let rows = documented
            .lines()
            .filter(|line| line.starts_with("| `"))
            .count();
        assert_eq!(
            rows,
            Code::ALL.len(),
            "docs/errors.md has a row for each code and no other"
        );
        for code in Code::ALL {
            let retryable = if code.retryable() { "yes" } else { "no" };
            let row = format!(
                "| `{}` | {} | {retryable} | {} |",
                code.as_str(),
                code.status(),
                code.title()
            );
            assert!(documented.contains(&row), "docs/errors.md lacks: {row}");
        }
    }
}
