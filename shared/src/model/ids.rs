//! Identifiers. An id of ours carries its kind (`con_01k…`, TypeID: prefix and UUIDv7 in base 32);
//! an id that belongs to the commerce backend (merchant, order, event) is taken as it is given,
//! within a safe alphabet.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest id of the commerce backend, in bytes.
pub const EXTERNAL_ID_BYTES_MAX: usize = 100;

/// Why a text is not an id.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not an id: 1 to 100 characters of A-Z a-z 0-9 . _ : - are allowed")]
pub struct IdError {
    text: String,
}

fn check(text: &str) -> Result<(), IdError> {
    let fits = (1..=EXTERNAL_ID_BYTES_MAX).contains(&text.len());
    let clean = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'));
    if fits && clean {
        return Ok(());
    }
    Err(IdError {
        text: text.chars().take(EXTERNAL_ID_BYTES_MAX).collect(),
    })
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok($name(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                check(&text)?;
                Ok($name(text))
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// TypeID of `uuid`: the kind, `_`, and the UUID in base 32.
fn typed(kind: &'static str, uuid: uuid::Uuid) -> String {
    let kind = type_safe_id::DynamicType::new(kind)
        .expect("the prefix is a constant of lower-case letters");
    type_safe_id::TypeSafeId::from_type_and_uuid(kind, uuid).to_string()
}

macro_rules! own_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        id!($(#[$doc])* $name);

        impl $name {
            /// A new id around `uuid`, which should be a UUIDv7 so that ids sort by age.
            pub fn new(uuid: uuid::Uuid) -> Self {
                $name(typed($prefix, uuid))
            }
        }
    };
}

id!(
    /// A merchant, as the commerce backend names it.
    MerchantId
);
id!(
    /// An event, as the commerce backend names it. It is also the idempotency key of publishing.
    EventId
);
id!(
    /// An order, payment, refund or other record, as the commerce backend names it.
    RecordId
);
impl EventId {
    /// The id of an event that begins here and not at the commerce backend.
    pub fn ours(uuid: uuid::Uuid) -> EventId {
        EventId(typed("evt", uuid))
    }
}

own_id!(
    /// One merchant's connection to one tenant of one provider.
    ConnectionId,
    "con"
);
own_id!(
    /// A link that lets one browser start one connection.
    LinkId,
    "lnk"
);
own_id!(
    /// A webhook endpoint.
    EndpointId,
    "ep"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_ids_carry_their_kind_and_external_ids_a_safe_alphabet() {
        let id = ConnectionId::new(uuid::Uuid::nil());
        assert_eq!(id.as_str(), "con_00000000000000000000000000");
        assert!("C536379".parse::<RecordId>().is_ok());
        for bad in ["", "a b", "a/b", "a#b", "é", &"x".repeat(101)] {
            assert!(bad.parse::<RecordId>().is_err(), "{bad:?}");
        }
    }
}
