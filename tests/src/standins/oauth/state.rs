//! What a stand-in remembers, and the file that keeps it across restarts.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::standins::damaged;

/// An app, as its developer registers it with the vendor.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    pub client_id: String,
    pub client_secret: String,
    /// Where a browser may be sent back to. Until one is registered, anywhere.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// Overrides whether the refresh token changes at each refresh, where the vendor leaves the
    /// choice to the app.
    #[serde(default)]
    pub rotate: Option<bool>,
}

/// A tenant: the organisation, portal, shop or project that consents.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub id: String,
    pub name: String,
    /// The person who consents for it. Some vendors count and revoke by person.
    #[serde(default)]
    pub user: String,
}

/// An authorization code. Times are seconds since 1970.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Code {
    pub client_id: String,
    pub redirect_uri: String,
    pub account: String,
    pub scope: String,
    /// The S256 challenge that its verifier has to meet.
    pub challenge: Option<String>,
    pub issued: i64,
    /// The grant that came of it, once it was exchanged.
    pub grant: Option<u64>,
}

/// One consent of one account to one app, or one key that an account made.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Grant {
    pub id: u64,
    pub client_id: String,
    pub account: String,
    pub user: String,
    pub scope: String,
    pub consented: i64,
    /// Names this consent among all of the same person.
    pub event: String,
    /// Whether it came of a code with a challenge.
    pub pkce: bool,
    pub revoked: bool,
    /// Whether the account was taken out of the grant, which is otherwise alive.
    pub detached: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Access {
    pub grant: u64,
    pub scope: String,
    pub issued: i64,
    /// Never, if absent.
    pub expires: Option<i64>,
    pub short_lived: bool,
    pub revoked: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Refresh {
    pub grant: u64,
    /// When it was handed out or last used: idle time counts from here.
    pub used: i64,
    /// When another value took its place.
    pub superseded: Option<i64>,
    pub revoked: bool,
}

#[derive(Default, Deserialize, Serialize)]
pub struct Data {
    pub seed: u64,
    pub counter: u64,
    pub clients: BTreeMap<String, Client>,
    pub accounts: Vec<Account>,
    pub codes: BTreeMap<String, Code>,
    pub grants: BTreeMap<u64, Grant>,
    pub access: BTreeMap<String, Access>,
    pub refresh: BTreeMap<String, Refresh>,
    /// How often each grant was asked for new tokens, whatever was answered.
    #[serde(default)]
    pub asked: BTreeMap<u64, u64>,
    /// What only one vendor has.
    pub own: BTreeMap<String, Value>,
}

impl Data {
    pub fn account(&self, id: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.id == id)
    }
}

/// The data, its file if it has one, and whether the two differ.
#[derive(Default)]
pub struct Store {
    data: Data,
    file: Option<PathBuf>,
    changed: bool,
}

impl Deref for Store {
    type Target = Data;

    fn deref(&self) -> &Data {
        &self.data
    }
}

/// Whoever takes the data to write has changed it.
impl DerefMut for Store {
    fn deref_mut(&mut self) -> &mut Data {
        self.changed = true;
        &mut self.data
    }
}

impl Store {
    /// Reads what an earlier process left in `folder`.
    pub fn open(folder: Option<&Path>, name: &str) -> io::Result<Self> {
        let Some(folder) = folder else {
            return Ok(Self::default());
        };
        fs::create_dir_all(folder)?;
        let file = folder.join(format!("{name}.json"));
        let data = if file.exists() {
            serde_json::from_slice(&fs::read(&file)?).map_err(|error| damaged(&file, &error))?
        } else {
            Data::default()
        };
        Ok(Self {
            data,
            file: Some(file),
            changed: false,
        })
    }

    /// Writes what changed. The file is replaced as a whole, so a kill leaves the old or the new.
    pub fn settle(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let Some(file) = &self.file else {
            return Ok(());
        };
        let fresh = file.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec(&self.data)?)?;
        fs::rename(&fresh, file)
    }

    /// A number never given before; ids and tokens are made of it, so runs repeat exactly.
    pub fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A value that nobody outside can guess and that the same run makes again.
    pub fn secret(&mut self) -> String {
        let number = self.next();
        URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{} {number}", self.seed)))
    }

    pub fn revoke(&mut self, which: impl Fn(&Grant) -> bool) -> usize {
        let mut count = 0;
        for grant in self.grants.values_mut() {
            if !grant.revoked && which(grant) {
                grant.revoked = true;
                count += 1;
            }
        }
        count
    }
}

/// The digest of a text in lower-case hex.
pub fn hex(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// An id in the form of a UUID that the same text always gets.
pub fn uuid(text: &str) -> String {
    let hex = hex(text);
    format!(
        "{}-{}-4{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}
