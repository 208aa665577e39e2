//! `/api/v1/integrations/…/{records,errors,retry,resync,summary}`: what of a merchant's records stands at
//! a connection, what does not and why, and sending it again.

use super::integrations::Call;
use super::{Request, Response};
use crate::ctx::Ctx;
use crate::engine::again::{self, RETRY_RECORDS_MAX, Wanted};
use crate::engine::count::{self, Counts, OPEN_MAX, Summary};
use crate::engine::daily;
use crate::engine::ledger::{self, KINDS};
use crate::engine::resync::{self, Resync};
use crate::error::{Error, FieldError, Result};
use crate::model::ids::MerchantId;
use crate::model::order_record::OrderRecord;
use crate::model::payout::PayoutRecord;
use crate::model::summary::SummaryName;
use crate::oauth::connection::{self, Connection};
use crate::store::{Item, keys};
use crate::sync::push::{Link, Problem, RowKind, RowRef, Standing};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

/// Most records of one page, and how many come when none is asked for.
pub const RECORDS_MAX: usize = 200;
const RECORDS_DEFAULT: usize = 50;
/// Most rows of the ledger that one page looks at. A page that is filtered may hold fewer records than
/// were asked for, and none, though more follow.
const LOOK_ROWS_MAX: usize = 2_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryRequest {
    merchant_id: MerchantId,
    #[serde(default)]
    records: Option<Vec<Wish>>,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResyncRequest {
    merchant_id: MerchantId,
    #[serde(default)]
    from: Option<DateTime<Utc>>,
    #[serde(default)]
    until: Option<DateTime<Utc>>,
}

pub fn handle<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        let call = Call::open(ctx, request).await?;
        let segments = request.segments();
        let ["api", "v1", "integrations", rest @ ..] = segments.as_slice() else {
            return Err(request.unknown());
        };
        match (request.method.as_str(), rest) {
            ("GET", ["summary"]) => call.total().await,
            ("GET", [category, id, "records"]) => call.records(category, id).await,
            ("GET", [category, id, "records", kind, record]) => {
                call.record(category, id, kind, record).await
            }
            ("GET", [category, id, "errors"]) => call.errors(category, id).await,
            ("POST", [category, id, "retry"]) => call.retry(category, id).await,
            ("POST", [category, id, "resync"]) => call.resync(category, id).await,
            ("GET", [category, id, "resync"]) => call.progress(category, id).await,
            ("GET", [category, id, "summary"]) => call.summary(category, id).await,
            ("POST", [category, id, "backfill"]) => call.start_backfill(category, id).await,
            ("GET", [category, id, "backfill"]) => call.backfill(category, id).await,
            ("DELETE", [category, id, "backfill"]) => call.stop_backfill(category, id).await,
            ("POST", [category, id, "reconcile"]) => call.reconcile(category, id).await,
            ("GET", [category, id, "reconciliations"]) => call.reconciliations(category, id).await,
            ("GET", [category, id, "reconciliations", name]) => {
                call.reconciliation(category, id, name).await
            }
            ("GET", [category, id, "reconciliations", name, "report.csv"]) => {
                call.report(category, id, name, false).await
            }
            ("GET", [category, id, "reconciliations", name, "report.html"]) => {
                call.report(category, id, name, true).await
            }
            (
                "POST",
                [
                    category,
                    id,
                    "reconciliations",
                    name,
                    "differences",
                    about,
                    decision,
                ],
            ) => call.decide(category, id, name, about, decision).await,
            _ => Err(request.unknown()),
        }
    })
}

/// The kind of record that a word of a request names.
fn kind(name: &str) -> Option<RowKind> {
    KINDS.into_iter().find(|kind| kind.as_str() == name)
}

pub(super) fn fault(place: &str, code: &'static str, detail: impl Into<String>) -> Error {
    Error::invalid(vec![FieldError::new(place, code, detail)])
}

/// A cursor of a request: the place of the last row that was looked at, or the beginning of a kind.
fn cursor(text: Option<&str>, kinds: &[RowKind]) -> Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let name = text.split_once('/').map(|(name, _)| name);
    if text.contains('\n') || !kinds.iter().any(|kind| Some(kind.as_str()) == name) {
        return Err(fault(
            "/cursor",
            "invalid_cursor",
            "a cursor is the next_cursor of the page before, with the same filter; leave it out to begin",
        ));
    }
    Ok(Some(text.to_owned()))
}

/// One row of the ledger as it is shown.
struct Shown {
    record: RowRef,
    link: Link,
    /// How it stands, be it by itself or in a summary.
    standing: Standing,
    /// What is wrong with it, or with the summary in which it is posted.
    problem: Option<Problem>,
}

/// How the rows of `found` stand.
async fn standing(
    ctx: &Ctx,
    connection: &Connection,
    found: Vec<(RowRef, Link)>,
) -> Result<Vec<Shown>> {
    let links = found.iter().map(|(record, link)| (record.kind, link));
    let summaries = daily::rows_of(ctx, connection, links).await?;
    let shown = found.into_iter().map(|(record, link)| {
        let summary = link
            .summary(record.kind)
            .and_then(|row| summaries.get(&row));
        let problem = link.problem.as_ref();
        let problem = problem.or_else(|| summary?.problem.as_ref()).cloned();
        Shown {
            standing: link.standing_in(summary),
            problem,
            record,
            link,
        }
    });
    Ok(shown.collect())
}

impl Call<'_> {
    /// The merchant's connection that a reading request is about.
    pub(super) async fn read(&self, category: &str, id: &str) -> Result<Connection> {
        let merchant = self.request.merchant_id()?;
        self.held(category, id, &merchant).await
    }

    /// The kinds of record that a request wants to see.
    fn kinds(&self) -> Result<Vec<RowKind>> {
        match self.request.query.get("type") {
            None => Ok(KINDS.to_vec()),
            Some(name) => kind(name).map(|kind| vec![kind]).ok_or_else(|| {
                let known = KINDS.map(RowKind::as_str).join(", ");
                fault("/type", "invalid_value", format!("known types are {known}"))
            }),
        }
    }

    /// The state of which a request wants to see records.
    fn state(&self) -> Result<Option<Standing>> {
        let Some(name) = self.request.query.get("state") else {
            return Ok(None);
        };
        let state = serde_json::from_value(json!(name)).map_err(|_| {
            let known = "pending, synced, parked, left_out and waiting";
            fault(
                "/state",
                "invalid_value",
                format!("known states are {known}"),
            )
        })?;
        Ok(Some(state))
    }

    async fn records(&self, category: &str, id: &str) -> Result<Response> {
        let connection = self.read(category, id).await?;
        let state = self.state()?;
        let (merchant, id) = (&connection.merchant_id, &connection.id);
        // What is parked or waits stands by itself, so that it is not looked for among all.
        let (group, whole) = match state {
            Some(Standing::Parked) => (keys::troubled(merchant, id), false),
            Some(Standing::Waiting) => (keys::waiting(merchant, id), false),
            _ => (keys::ledger(merchant, id), true),
        };
        let wanted = |row: &Shown| state.is_none_or(|state| state == row.standing);
        let (shown, next) = self.page(&connection, &group, whole, wanted).await?;
        let current = self.current(&connection, &shown).await?;
        let rows = shown.iter().zip(&current);
        let now = self.ctx.now();
        let data = rows.map(|(row, current)| view(row, current.as_ref(), now));
        let data: Vec<Value> = data.collect::<Result<_>>()?;
        list(data, next)
    }

    /// What is parked or failing, in the order of type and id.
    async fn errors(&self, category: &str, id: &str) -> Result<Response> {
        let connection = self.read(category, id).await?;
        let group = keys::troubled(&connection.merchant_id, &connection.id);
        let code = self.request.query.get("code");
        let wanted = |row: &Shown| {
            let problem = row.link.problem.as_ref();
            problem.is_some_and(|problem| code.is_none_or(|code| *code == problem.code))
        };
        let (shown, next) = self.page(&connection, &group, false, wanted).await?;
        let data = shown
            .iter()
            .map(|row| trouble(&connection, row, self.ctx.now()));
        list(data.collect(), next)
    }

    /// One page of the rows of `group` that are `wanted`; `whole` says whether the group holds the rows
    /// themselves or points to them. Returns them with the cursor of the next page.
    async fn page(
        &self,
        connection: &Connection,
        group: &crate::store::Group,
        whole: bool,
        wanted: impl Fn(&Shown) -> bool,
    ) -> Result<(Vec<Shown>, Option<String>)> {
        let limit = self.request.limit(RECORDS_DEFAULT, RECORDS_MAX)?;
        let kinds = self.kinds()?;
        let after = self.request.query.get("cursor").map(String::as_str);
        let mut after = cursor(after, &kinds)?;
        let (mut shown, mut looked) = (Vec::new(), 0);
        loop {
            let page = ledger::page(self.ctx, group, &kinds, after.as_deref(), RECORDS_MAX);
            let (items, next) = page.await?;
            looked += items.len();
            let places = items.iter().map(|item| keys::place(&item.key).to_owned());
            let places: Vec<String> = places.collect();
            let records = places.iter().filter_map(|place| ledger::row_at(place));
            let records: Vec<RowRef> = records.collect();
            let rows = match whole {
                true => items.into_iter().map(Some).collect(),
                false => {
                    let rows = ledger::rows(connection, &records);
                    self.ctx.store.get_many(&rows).await?
                }
            };
            let read = records.into_iter().zip(rows).zip(places);
            let read = read.filter_map(|((record, row), place)| Some((record, row?, place)));
            let (mut found, mut at) = (Vec::new(), Vec::new());
            for (record, row, place) in read {
                found.push((record, row.read()?));
                at.push(place);
            }
            let found = standing(self.ctx, connection, found).await?;
            for (row, place) in found.into_iter().zip(at) {
                if wanted(&row) {
                    shown.push(row);
                }
                if shown.len() == limit {
                    // It may have been the last one; then the next page is empty.
                    return Ok((shown, Some(place)));
                }
            }
            after = next;
            if after.is_none() || looked >= LOOK_ROWS_MAX {
                return Ok((shown, after));
            }
        }
    }

    /// What the shop says of each record now.
    async fn current(&self, connection: &Connection, shown: &[Shown]) -> Result<Vec<Option<Item>>> {
        let merchant = &connection.merchant_id;
        let key = |row: &Shown| {
            let owner = row.record.owner();
            keys::posted(merchant, &connection.id, owner.kind, &owner.id)
        };
        let documents: Vec<_> = shown.iter().map(key).collect();
        self.ctx.store.get_many(&documents).await
    }

    async fn record(&self, category: &str, id: &str, name: &str, record: &str) -> Result<Response> {
        let connection = self.read(category, id).await?;
        let missing = || Error::not_found(format!("a {name} {record} at this connection"));
        let kind = kind(name).ok_or_else(missing)?;
        let record = RowRef {
            kind,
            id: record.to_owned(),
        };
        // Judged whatever the record is, as the document says.
        let limit = self.request.limit(RECORDS_DEFAULT, RECORDS_MAX)?;
        let after = self.request.query.get("cursor").map(String::as_str);
        let after = cursor(after, &[kind])?;
        let [row] = ledger::rows(&connection, std::slice::from_ref(&record))
            .try_into()
            .map_err(|_| missing())?;
        let row = self.ctx.store.get(&row).await?.ok_or_else(missing)?;
        let summed = match kind {
            RowKind::Order | RowKind::Refund => SummaryName::parse(&record.id),
            _ => None,
        };
        let found = vec![(record, row.read()?)];
        let shown = standing(self.ctx, &connection, found).await?;
        let current = self.current(&connection, &shown).await?;
        let now = self.ctx.now();
        let views = shown.iter().zip(&current);
        let mut views = views.map(|(shown, current)| view(shown, current.as_ref(), now));
        let mut view = views.next().ok_or_else(missing)??;
        if let Some(name) = summed {
            view["behind"] = self.behind(&connection, kind, &name, limit, after).await?;
        }
        Response::json(200, &view)
    }

    /// One page of the records that a summary holds, or is to hold.
    async fn behind(
        &self,
        connection: &Connection,
        kind: RowKind,
        name: &SummaryName,
        limit: usize,
        mut after: Option<String>,
    ) -> Result<Value> {
        let group = keys::day(&connection.merchant_id, name.day);
        let (kinds, id) = ([kind], name.id());
        let (mut behind, mut looked) = (Vec::new(), 0);
        let next = 'pages: loop {
            let page = ledger::page(self.ctx, &group, &kinds, after.as_deref(), RECORDS_MAX);
            let (items, next) = page.await?;
            looked += items.len();
            let places: Vec<&str> = items.iter().map(|item| keys::place(&item.key)).collect();
            let records = places.iter().filter_map(|place| ledger::row_at(place));
            let records: Vec<RowRef> = records.collect();
            let rows = ledger::rows(connection, &records);
            let rows = self.ctx.store.get_many(&rows).await?;
            for ((record, row), place) in records.into_iter().zip(rows).zip(places) {
                let link = row.map(|row| row.read::<Link>()).transpose()?;
                let link = link.filter(|link| {
                    let summed = link.summed.as_ref();
                    summed.is_some_and(|summed| summed.id == id)
                });
                behind.extend(link.map(|link| (record, link)));
                if behind.len() == limit {
                    break 'pages Some(place.to_owned());
                }
            }
            after = next;
            if after.is_none() || looked >= LOOK_ROWS_MAX {
                break after;
            }
        };
        let shown = standing(self.ctx, connection, behind).await?;
        let data = shown.iter().map(|row| {
            json!({
                "type": row.record.kind, "id": row.record.id, "state": row.standing,
                "revision": row.link.record_rev, "held": held(&row.link),
            })
        });
        Ok(json!({
            "data": data.collect::<Vec<_>>(),
            "has_more": next.is_some(), "next_cursor": next, "prev_cursor": null,
        }))
    }

    async fn retry(&self, category: &str, id: &str) -> Result<Response> {
        let body: RetryRequest = self.request.read()?;
        let wanted = wanted(body.records, body.code, body.cursor)?;
        let connection = self.held(category, id, &body.merchant_id).await?;
        let sent = again::retry(self.ctx, &connection, wanted).await?;
        let body = json!({
            "sent": sent.count, "has_more": sent.next.is_some(), "next_cursor": sent.next,
        });
        Response::json(202, &body)
    }

    async fn resync(&self, category: &str, id: &str) -> Result<Response> {
        let body: ResyncRequest = self.request.read()?;
        if let (Some(from), Some(until)) = (body.from, body.until)
            && from >= until
        {
            let detail = "the window ends before it begins; until is the first moment after it";
            return Err(fault("/until", "invalid_value", detail));
        }
        let connection = self.held(category, id, &body.merchant_id).await?;
        let resync = resync::start(self.ctx, &connection, body.from, body.until).await?;
        Response::json(202, &progress(&resync))
    }

    async fn progress(&self, category: &str, id: &str) -> Result<Response> {
        let connection = self.read(category, id).await?;
        let resync = resync::last(self.ctx, &connection).await?;
        Response::json(200, &progress(&resync))
    }

    async fn summary(&self, category: &str, id: &str) -> Result<Response> {
        let connection = self.read(category, id).await?;
        let mut rows_max = count::ROWS_MAX;
        let summary = count::summary(self.ctx, &connection, &mut rows_max).await?;
        Response::json(200, &summed(&connection, &summary))
    }

    /// All connections of a merchant, and the sum of them.
    async fn total(&self) -> Result<Response> {
        let merchant = self.merchant(&self.request.merchant_id()?).await?;
        let connections = connection::list(self.ctx, &merchant.id).await?;
        let mut rows_max = count::ROWS_MAX;
        let (mut data, mut counts, mut as_of) = (Vec::new(), Counts::default(), None);
        let mut complete = true;
        for (_, connection) in connections {
            if self.ctx.config.enabled(connection.category).is_err() {
                continue;
            }
            let summary = count::summary(self.ctx, &connection, &mut rows_max).await?;
            match &summary.count {
                Some(count) => {
                    counts = counts.plus(count.counts);
                    as_of = as_of.map_or(Some(count.as_of), |before: DateTime<Utc>| {
                        Some(before.min(count.as_of))
                    });
                }
                None => complete = false,
            }
            data.push(summed(&connection, &summary));
        }
        let counted = complete.then_some(counts);
        let body = json!({
            "merchant_id": merchant.id,
            "accuracy": counted.and_then(Counts::accuracy),
            "counts": counted,
            "as_of": as_of.filter(|_| complete),
            "connections": data,
        });
        Response::json(200, &body)
    }
}

/// Reads what a retry is about: records or a code, and one of them.
fn wanted(
    records: Option<Vec<Wish>>,
    code: Option<String>,
    after: Option<String>,
) -> Result<Wanted> {
    match (records, code) {
        (Some(wishes), None) if after.is_none() => {
            if !(1..=RETRY_RECORDS_MAX).contains(&wishes.len()) {
                let detail = format!("name 1 to {RETRY_RECORDS_MAX} records");
                return Err(fault("/records", "invalid_value", detail));
            }
            let mut faults = Vec::new();
            let mut records = Vec::new();
            for (index, wish) in wishes.into_iter().enumerate() {
                match kind(&wish.kind) {
                    Some(kind) => records.push(RowRef { kind, id: wish.id }),
                    None => {
                        let known = KINDS.map(RowKind::as_str).join(", ");
                        let detail = format!("known types are {known}");
                        let place = format!("/records/{index}/type");
                        faults.push(FieldError::new(&place, "invalid_value", detail));
                    }
                }
            }
            match faults.is_empty() {
                true => Ok(Wanted::Records(records)),
                false => Err(Error::invalid(faults)),
            }
        }
        (None, Some(code)) => Ok(Wanted::Code(code, cursor(after.as_deref(), &KINDS)?)),
        (Some(_), _) => Err(fault(
            "/records",
            "invalid_value",
            "records are named alone, without a code and a cursor",
        )),
        _ => Err(fault(
            "",
            "invalid_value",
            "name records, or the code of what is to be sent again",
        )),
    }
}

pub(super) fn list(data: Vec<Value>, next: Option<String>) -> Result<Response> {
    let body = json!({
        "data": data, "has_more": next.is_some(), "next_cursor": next, "prev_cursor": null,
    });
    Response::json(200, &body)
}

/// Whether its summary holds a record in the newest revision that is known here.
fn held(link: &Link) -> bool {
    let held = link.summed.as_ref().and_then(|summed| summed.held);
    held.is_some_and(|held| held.record_rev >= link.record_rev)
}

/// A row of the ledger beside what the shop says of the record now.
fn view(row: &Shown, current: Option<&Item>, now: DateTime<Utc>) -> Result<Value> {
    let Shown { record, link, .. } = row;
    let version = match (record.kind, current) {
        _ if SummaryName::parse(&record.owner().id).is_some() => None,
        (RowKind::Order, Some(item)) => {
            let order = item.read::<OrderRecord>()?.order;
            order.map(|order| order.version)
        }
        (RowKind::Payout | RowKind::PayoutFees, Some(item)) => {
            let payout = item.read::<PayoutRecord>()?.payout;
            payout.map(|payout| payout.version)
        }
        _ => None,
    };
    let documents: Vec<Value> = link
        .remote
        .iter()
        .map(
            |remote| json!({ "id": remote.id, "version": remote.version, "number": remote.number }),
        )
        .collect();
    Ok(json!({
        "type": record.kind,
        "id": record.id,
        "state": row.standing,
        "since": match &link.waiting {
            Some(waiting) => Some(waiting.since),
            None => link.since.or(link.updated_at),
        },
        "revision": link.record_rev,
        "shop": { "revision": current.map(|item| item.rev), "version": version },
        "documents": documents,
        "summary": link.summed.as_ref().map(|summed| json!({ "id": summed.id, "held": held(link) })),
        "attempts": link.attempts,
        "error": row.problem,
        "next_attempt_at": coming(link, now),
        "updated_at": link.updated_at,
    }))
}

/// When something is done about it by itself. What is to be in a daily summary waits until its day is over,
/// far ahead though that be.
fn coming(link: &Link, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let summed = link.summed.as_ref().filter(|summed| summed.held.is_none());
    let ends = summed.and_then(|summed| Some(SummaryName::parse(&summed.id)?.ends()));
    let coming = link.next_attempt_at.or(ends);
    coming.filter(|at| *at > now)
}

/// A row of the ledger in which something is wrong, and what to do about it.
fn trouble(connection: &Connection, row: &Shown, now: DateTime<Utc>) -> Value {
    let Shown { record, link, .. } = row;
    let state = row.standing;
    let coming = coming(link, now);
    let todo = match (state, coming) {
        _ if link.gone.is_some() => {
            "Nothing, if it was meant to go; a retry does not make it again. Else post it there by hand."
        }
        (Standing::Waiting, _) => {
            "It is sent when the connection can be used again: resume it, or connect it again."
        }
        (Standing::Pending, Some(_)) => "Nothing; it is tried again by itself.",
        (Standing::Pending, None) => {
            "Retry it: it may be on its way, or was tried as often as it is by itself."
        }
        _ => "Change what the error names, there or in the shop; then retry it.",
    };
    json!({
        "type": record.kind,
        "id": record.id,
        "state": state,
        "since": link.since.or(link.updated_at),
        "code": link.problem.as_ref().map(|problem| &problem.code),
        "detail": link.problem.as_ref().map(|problem| &problem.detail),
        "todo": todo,
        "attempts": link.attempts,
        "next_attempt_at": coming,
        "retry": {
            "path": format!(
                "/api/v1/integrations/{}/{}/retry", connection.category.as_str(), connection.id
            ),
            "body": {
                "merchant_id": connection.merchant_id,
                "records": [{ "type": record.kind, "id": record.id }],
            },
        },
    })
}

fn progress(resync: &Resync) -> Value {
    json!({
        "id": resync.id,
        "state": resync.state,
        "from": resync.from,
        "until": resync.until,
        "looked": resync.looked,
        "sent": resync.sent,
        "started_at": resync.started_at,
        "updated_at": resync.updated_at,
    })
}

fn summed(connection: &Connection, summary: &Summary) -> Value {
    let count = summary.count.as_ref();
    json!({
        "connection_id": connection.id,
        "accuracy": count.and_then(|count| count.counts.accuracy()),
        "counts": count.map(|count| count.counts),
        "as_of": count.map(|count| count.as_of),
        "counting": summary.counting,
        "open": {
            "errors": summary.troubled,
            "waiting": summary.waiting,
            "at_least": summary.troubled.max(summary.waiting) >= OPEN_MAX,
        },
    })
}
