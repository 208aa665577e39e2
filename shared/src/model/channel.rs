//! Where a shop sells: its web shop, its tills, a marketplace.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest channel, in characters: it stands in the ids of daily summaries.
pub const CHANNEL_CHARACTERS_MAX: usize = 20;

/// A channel through which an order came, such as `web` or `pos`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Channel(String);

/// Why a text is not a channel.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is not a channel: 1 to 20 characters of a-z 0-9 _ - are allowed, such as \"web\""
)]
pub struct ChannelError {
    text: String,
}

impl Channel {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The channel of what names none.
impl Default for Channel {
    fn default() -> Channel {
        Channel("shop".to_owned())
    }
}

impl std::str::FromStr for Channel {
    type Err = ChannelError;
    fn from_str(text: &str) -> Result<Channel, ChannelError> {
        let fits = (1..=CHANNEL_CHARACTERS_MAX).contains(&text.len());
        let plain =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
        if fits && text.bytes().all(plain) {
            return Ok(Channel(text.to_owned()));
        }
        Err(ChannelError {
            text: text.chars().take(CHANNEL_CHARACTERS_MAX).collect(),
        })
    }
}

impl TryFrom<String> for Channel {
    type Error = ChannelError;
    fn try_from(text: String) -> Result<Channel, ChannelError> {
        text.parse()
    }
}

impl From<Channel> for String {
    fn from(channel: Channel) -> String {
        channel.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
