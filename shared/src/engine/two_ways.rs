//! What was seen at a provider meets the ledger: `sync::conflict` decides, and the row, the event that
//! tells of it and the outbox's row are stored in one transaction. So a change is told once, however
//! often it is seen, and what the shop is to write again is written by whoever gets that event.

use super::daily::Made;
use super::ledger::{RACE_ROUNDS_MAX, Row, RowName};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::{EventType, RecordKind, fingerprint};
use crate::model::ids::{EventId, RecordId};
use crate::model::notice::{Notice, Place, RecordRef, StoredEvent};
use crate::model::order::Refund;
use crate::model::order_record::OrderRecord;
use crate::model::payout::PayoutRecord;
use crate::model::summary::SummaryName;
use crate::oauth::connection::Connection;
use crate::providers::accounting::Accounting;
use crate::store::{Condition, Write, keys};
use crate::sync::conflict::{Change, Seen, Standing, Verdict, is_newer_there, judge};
use crate::sync::push::{Link, LinkState, RowKind, RowRef};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Which row of the ledger a thing at the provider belongs to: it stands under the provider's kind and
/// id, and is written before the row that names that id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Theirs {
    /// As in the key of the row: `order`, `payment`, …, `customer`, `item`.
    pub kind: String,
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<RecordId>,
}

impl Theirs {
    /// The row's name, if it is one of a document.
    fn row(&self) -> Option<RowName> {
        let kind = RowKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.kind)?;
        let id = self.id.clone();
        Some(RowName {
            row: RowRef { kind, id },
            order_id: self.order_id.clone(),
        })
    }
}

/// What came of meeting one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// It is none of ours.
    Stranger,
    /// The ledger knows it, now or before.
    Known,
    /// It cannot be told yet, since a write of ours is open.
    Open,
}

/// Whose changes meet whose ledger.
pub(super) struct Meeting<'a> {
    pub ctx: &'a Ctx,
    pub provider: &'static dyn Accounting,
    pub connection: &'a Connection,
    /// How far the provider's clock is ahead of ours.
    pub skew: TimeDelta,
}

impl Meeting<'_> {
    /// Meets `seen`, of which `theirs` says the row.
    pub async fn meet(&self, theirs: &Theirs, seen: &Seen) -> Result<Met> {
        let mut busy = None;
        for _ in 0..RACE_ROUNDS_MAX {
            let met = match theirs.row() {
                Some(name) => self.meet_document(&name, seen).await,
                None => self.meet_dependency(theirs, seen).await,
            };
            match met {
                Err(error) if error.code() == Code::Busy => busy = Some(error),
                outcome => return outcome,
            }
        }
        busy.map_or(Ok(Met::Known), Err)
    }

    async fn meet_document(&self, name: &RowName, seen: &Seen) -> Result<Met> {
        let mut row = Row::load(self.ctx, self.connection, name).await?;
        let sent = row.link.record_rev;
        let verdict = self.judge(&row.link, sent, name, seen).await?;
        let (link, writes) = match verdict {
            Verdict::Stranger => return Ok(Met::Stranger),
            Verdict::Known => return Ok(Met::Known),
            Verdict::Open => return Ok(Met::Open),
            Verdict::Noted(link) => (*link, Vec::new()),
            Verdict::Changed(mut change) => {
                let writes = self.tell(name.row.kind.as_str(), name, seen, &mut change)?;
                (change.link, writes)
            }
        };
        row.store_with(self.ctx, link, writes).await?;
        Ok(Met::Known)
    }

    /// What the row of a document makes of `seen`, when the provider has revision `sent` of the record.
    pub async fn judge(
        &self,
        link: &Link,
        sent: u64,
        name: &RowName,
        seen: &Seen,
    ) -> Result<Verdict> {
        let policy = &self.connection.settings.conflicts;
        let newer = match policy.by_time() {
            true => {
                let shop_at = self.unsent_since(sent, name).await?;
                is_newer_there(seen.at, shop_at, self.skew)
            }
            false => false,
        };
        let form = link.form;
        let fixed = form.is_some_and(|form| self.provider.is_fixed(form));
        let title = form.map_or("document", |form| form.title());
        let now = self.ctx.now();
        Ok(judge(link, seen, policy, newer, (fixed, title), now))
    }

    /// When the shop changed the record of a row last, if the provider has not got that change yet.
    async fn unsent_since(&self, sent: u64, name: &RowName) -> Result<Option<DateTime<Utc>>> {
        let owner = name.row.owner();
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let key = keys::posted(merchant, id, owner.kind, &owner.id);
        let Some(item) = self.ctx.store.get(&key).await? else {
            return Ok(None);
        };
        if item.rev <= sent {
            return Ok(None);
        }
        if SummaryName::parse(&owner.id).is_some() {
            return Ok(Some(item.read::<Made>()?.made_at));
        }
        match owner.kind {
            RecordKind::Refund => Ok(Some(item.read::<Refund>()?.refunded_at)),
            RecordKind::Payout => Ok(item.read::<PayoutRecord>()?.changed_at),
            _ => Ok(item.read::<OrderRecord>()?.changed_at),
        }
    }

    /// Customers and items are found and made, and never written over: whatever becomes of them there
    /// is accepted, and told.
    async fn meet_dependency(&self, theirs: &Theirs, seen: &Seen) -> Result<Met> {
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let key = keys::link(merchant, id, &theirs.kind, &theirs.id);
        let Some(item) = self.ctx.store.get(&key).await? else {
            return Ok(Met::Stranger);
        };
        let (link, policy): (Link, _) = (item.read()?, self.connection.settings.conflicts);
        let now = self.ctx.now();
        let back = link.gone.is_some() && matches!(seen.standing, Standing::Stands { .. });
        let mut before = link.clone();
        if back {
            before.gone = None;
        }
        let (link, writes) = match judge(&before, seen, &policy, true, (false, &theirs.kind), now) {
            Verdict::Stranger => return Ok(Met::Stranger),
            Verdict::Known | Verdict::Open => return Ok(Met::Known),
            Verdict::Noted(link) => (*link, Vec::new()),
            Verdict::Changed(mut change) => {
                if let Standing::Stands { remote, .. } = &seen.standing {
                    change.outcome = crate::sync::conflict::Outcome::ProviderWins;
                    change.link = Link {
                        remote: Some(remote.clone()),
                        ..link
                    };
                }
                let name = RowName {
                    row: RowRef {
                        kind: RowKind::Order,
                        id: theirs.id.clone(),
                    },
                    order_id: None,
                };
                let writes = self.tell(&theirs.kind, &name, seen, &mut change)?;
                (change.link, writes)
            }
        };
        let stands = matches!(seen.standing, Standing::Stands { .. });
        let link = match stands {
            true => Link {
                state: LinkState::Synced,
                problem: None,
                gone: None,
                attempts: 0,
                kept: None,
                ..link
            },
            // It is no record of the shop's that somebody has to see to.
            false => Link {
                state: LinkState::Pending,
                problem: None,
                ..link
            },
        };
        let mut all = vec![Write::put(key, Condition::Rev(item.rev), &link)?];
        all.extend(writes);
        self.ctx.store.transact(all).await.map_err(Error::from)?;
        Ok(Met::Known)
    }

    /// The writes that tell the platform and its developers of `change`; the row is changed along.
    pub fn tell(
        &self,
        kind: &str,
        name: &RowName,
        seen: &Seen,
        change: &mut Change,
    ) -> Result<Vec<Write>> {
        let (connection, now) = (self.connection, self.ctx.now());
        let merchant = &connection.merchant_id;
        let id = EventId::ours(self.ctx.uuid());
        let mut told = change.link.told.take().unwrap_or_default();
        let previous_id = told.last.replace(id.clone());
        told.n += 1;
        let n = told.n;
        change.link.told = Some(told);
        let remote = change.link.remote.as_ref();
        let stands = matches!(seen.standing, Standing::Stands { .. });
        let data = json!({
            "connection_id": connection.id,
            "provider": connection.provider,
            "record": { "type": kind, "id": name.row.id },
            "what": change.what,
            "fields": change.fields,
            "outcome": change.outcome,
            "there": {
                "type": seen.kind,
                "id": seen.id,
                "number": remote.and_then(|remote| remote.number.as_ref()),
                "shown": stands.then_some(&seen.shown),
            },
            "changed_at": seen.at,
        });
        // A change of a document brings its record up again, so that what the shop is to write is
        // written; of the rest, nothing is ever written again.
        let record = match matches!(kind, "customer" | "item") {
            false => name.row.owner(),
            true => RecordRef {
                kind: RecordKind::Connection,
                id: connection.id.to_string(),
            },
        };
        let stored = StoredEvent {
            id: id.clone(),
            kind: EventType::RecordChanged,
            merchant_id: merchant.clone(),
            occurred_at: now,
            accepted_at: now,
            fingerprint: fingerprint(&data),
            data,
            record: record.clone(),
            applied: true,
            place: Place {
                key: format!("{}/{kind}/{}", connection.id, name.row.id),
                n,
                previous_id,
            },
        };
        let notice = Notice {
            merchant_id: merchant.clone(),
            event_id: id.clone(),
            kind: EventType::RecordChanged,
            record,
            order_id: name.order_id.clone(),
            accepted_at: now,
            after: None,
            resync: None,
            backfill: None,
            summing: None,
        };
        tracing::info!(
            merchant_id = %merchant, connection_id = %connection.id, kind, record = %name.row.id,
            what = ?change.what, outcome = ?change.outcome, "changed at the provider"
        );
        Ok(vec![
            Write::put(keys::event(merchant, &id), Condition::Absent, &stored)?,
            Write::put(keys::outbox(merchant, &id), Condition::Any, &notice)?,
        ])
    }
}
