//! The three shapes in which the vendor refuses a call.

use serde_json::{Value, json};

use crate::standins::faults::retry_after;
use crate::standins::wire::{Reply, json_reply, reply};

/// A refusal by the service: one error, with the vendor's number for it.
#[derive(Clone, Debug)]
pub struct Fault {
    pub code: &'static str,
    pub message: &'static str,
    pub detail: String,
    pub element: String,
    pub kind: &'static str,
}

impl Fault {
    pub fn new(code: &'static str, message: &'static str, detail: impl Into<String>) -> Self {
        Self {
            code,
            message,
            detail: detail.into(),
            element: String::new(),
            kind: "ValidationFault",
        }
    }

    #[must_use]
    pub fn at(mut self, element: impl Into<String>) -> Self {
        self.element = element.into();
        self
    }

    /// 6200: nothing of a day up to which the books are closed is made, changed or taken away.
    pub fn closed() -> Self {
        Self::new(
            "6200",
            "Account Period Closed, Cannot Update Through Services",
            "Account Period Closed, Cannot Update Through Services : The account period has closed \
             and the account books cannot be updated through the QBO Services API. Please use the QBO \
             website to make these changes.",
        )
    }

    /// 6000, the vendor's catch-all: the detail is all there is.
    pub fn business(detail: impl AsRef<str>) -> Self {
        Self::new(
            "6000",
            "A business validation error has occurred while processing your request",
            format!("Business Validation Error: {}", detail.as_ref()),
        )
    }

    pub fn unknown_property(name: &str) -> Self {
        Self::new(
            "2010",
            "Request has invalid or unsupported property",
            format!("Property Name:{name} specified is unsupported or invalid"),
        )
        .at(name)
    }

    pub fn missing(name: &str) -> Self {
        Self::new(
            "2020",
            "Required param missing, need to supply the required value for the API",
            format!("Required parameter {name} is missing in the request"),
        )
        .at(name)
    }

    pub fn length(name: &str, max: usize, supplied: usize) -> Self {
        Self::new(
            "2050",
            "String length is either shorter or longer than supported by specification",
            format!("String length specified does not match the supported length. Min:0 Max:{max} supported. Supplied length:{supplied}"),
        )
        .at(name)
    }

    pub fn invalid_string(name: &str, value: &str) -> Self {
        Self::new(
            "2040",
            "Invalid String",
            format!("Element contains invalid characters : {value}"),
        )
        .at(name)
    }

    pub fn reference(what: &str, id: &str) -> Self {
        Self::new(
            "2500",
            "Invalid Reference Id",
            format!("Invalid Reference Id : {what} element id {id} not found"),
        )
        .at(what)
    }

    pub fn not_found() -> Self {
        Self::new(
            "610",
            "Object Not Found",
            "Object Not Found : Something you're trying to use has been made inactive. Check the fields with accounts, customers, items, vendors or employees.",
        )
    }

    pub fn stale() -> Self {
        Self::new(
            "5010",
            "Stale Object Error",
            "Stale Object Error : You and another user were working on this at the same time. The other user finished before you did, so your work was not saved.",
        )
    }

    pub fn duplicate_name() -> Self {
        Self::new(
            "6240",
            "Duplicate Name Exists Error",
            "The name supplied already exists. : null",
        )
    }

    pub fn unsupported(operation: &str) -> Self {
        Self::new(
            "500",
            "Unsupported Operation",
            format!("Operation {operation} is not supported."),
        )
    }

    /// The `Fault` object alone, as it stands in a batch answer too.
    pub fn body(&self) -> Value {
        json!({
            "Error": [{
                "Message": self.message,
                "Detail": self.detail,
                "code": self.code,
                "element": self.element,
            }],
            "type": self.kind,
        })
    }
}

/// The gateway's own refusals in JSON: lower-case keys, unlike the service's.
pub fn gateway_json(
    status: u16,
    name: &str,
    detail: &str,
    code: &str,
    kind: &str,
    time: &str,
) -> Reply {
    json_reply(
        status,
        &json!({
            "warnings": null,
            "intuitObject": null,
            "fault": {
                "error": [{
                    "message": format!("message={name}; errorCode={code:0>6}; statusCode={status}"),
                    "detail": detail,
                    "code": code,
                    "element": null,
                }],
                "type": kind,
            },
            "report": null,
            "queryResponse": null,
            "batchItemResponse": [],
            "attachableResponse": [],
            "syncErrorResponse": null,
            "requestId": null,
            "time": time,
            "status": null,
            "cdcresponse": [],
        }),
    )
}

/// The gateway's refusals in XML, which it sends whatever the caller accepts.
pub fn gateway_xml(
    status: u16,
    message: &str,
    detail: &str,
    code: &str,
    kind: &str,
    time: &str,
) -> Reply {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n<IntuitResponse time=\"{time}\" xmlns=\"http://schema.intuit.com/finance/v3\"><Fault type=\"{kind}\"><Error code=\"{code}\"><Message>{message}</Message><Detail>{detail}</Detail></Error></Fault></IntuitResponse>"
    );
    reply(status, "application/xml;charset=UTF-8", body)
}

/// Too many calls: the gateway's answer, without a hint of how long to wait unless one is given.
pub fn throttled(wait: Option<u64>, time: &str) -> Reply {
    let response = gateway_xml(
        429,
        "message=ThrottleExceeded; errorCode=003001; statusCode=429",
        "Throttle limit exceeded",
        "3001",
        "SERVICE",
        time,
    );
    retry_after(response, wait)
}

/// A failure inside the vendor.
pub fn broken(status: u16, time: &str) -> Reply {
    json_reply(
        status,
        &json!({
            "Fault": {
                "Error": [{
                    "Message": "An application error has occurred while processing your request",
                    "Detail": "System Failure Error: Could not complete the request",
                    "code": "10000",
                    "element": "",
                }],
                "type": "SystemFault",
            },
            "time": time,
        }),
    )
}
