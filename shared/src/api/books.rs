//! `/api/v1/integrations/…/{backfill,reconcile,reconciliations}`: what was sold before a connection was
//! made, and whether its books show what the shop says. Served with `api::records`.

use super::integrations::Call;
use super::records::{fault, list};
use super::{Response, report};
use crate::engine::backfill::{self, Backfill, Estimate};
use crate::engine::reconcile::{self, Cause, Decision, Reconciliation};
use crate::error::{Error, Result};
use crate::model::ids::MerchantId;
use crate::oauth::connection::Connection;
use crate::sync::reconcile::{Class, Decided, Difference};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

/// Most reconciliations of one list, and how many come when none is asked for.
pub const RECONCILIATIONS_MAX: usize = 200;
const RECONCILIATIONS_DEFAULT: usize = 50;
/// Most sums and differences of one answer.
pub const FINDINGS_MAX: usize = 2000;
/// Most rows of a report.
pub const REPORT_ROWS_MAX: usize = 15_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowRequest {
    merchant_id: MerchantId,
    from: NaiveDate,
    to: NaiveDate,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainRequest {
    merchant_id: MerchantId,
}

impl WindowRequest {
    fn check(&self, days_max: i64) -> Result<()> {
        if self.from > self.to {
            let detail = "the window ends before it begins; to is its last day";
            return Err(fault("/to", "invalid_value", detail));
        }
        if (self.to - self.from).num_days() >= days_max {
            let detail = format!("a window has at most {days_max} days");
            return Err(fault("/from", "out_of_range", detail));
        }
        Ok(())
    }
}

impl Call<'_> {
    pub(super) async fn start_backfill(&self, category: &str, id: &str) -> Result<Response> {
        let body: WindowRequest = self.request.read()?;
        body.check(backfill::DAYS_MAX)?;
        let connection = self.held(category, id, &body.merchant_id).await?;
        if let Some(from) = connection.settings.records_from
            && body.from < from.date_naive()
        {
            let detail = format!(
                "this connection takes records from {} on; set records_from to an earlier time, then \
                 send this again",
                from.date_naive()
            );
            return Err(fault("/from", "before_records_from", detail));
        }
        let begun = backfill::start(self.ctx, &connection, body.from, body.to).await?;
        Response::json(202, &progress(&begun, &connection, self.ctx.now()))
    }

    pub(super) async fn backfill(&self, category: &str, id: &str) -> Result<Response> {
        let connection = self.read(category, id).await?;
        let last = backfill::last(self.ctx, &connection).await?;
        Response::json(200, &progress(&last, &connection, self.ctx.now()))
    }

    pub(super) async fn stop_backfill(&self, category: &str, id: &str) -> Result<Response> {
        let body: PlainRequest = self.request.read()?;
        let connection = self.held(category, id, &body.merchant_id).await?;
        let stopped = backfill::stop(self.ctx, &connection).await?;
        Response::json(200, &progress(&stopped, &connection, self.ctx.now()))
    }

    pub(super) async fn reconcile(&self, category: &str, id: &str) -> Result<Response> {
        let body: WindowRequest = self.request.read()?;
        body.check(reconcile::DAYS_MAX)?;
        let connection = self.held(category, id, &body.merchant_id).await?;
        let begun =
            reconcile::start(self.ctx, &connection, body.from, body.to, Cause::Request).await?;
        Response::json(202, &summed(&begun))
    }

    pub(super) async fn reconciliations(&self, category: &str, id: &str) -> Result<Response> {
        let connection = self.read(category, id).await?;
        let limit = self
            .request
            .limit(RECONCILIATIONS_DEFAULT, RECONCILIATIONS_MAX)?;
        let all = reconcile::list(self.ctx, &connection, limit).await?;
        list(all.iter().map(summed).collect(), None)
    }

    pub(super) async fn reconciliation(
        &self,
        category: &str,
        id: &str,
        name: &str,
    ) -> Result<Response> {
        let connection = self.read(category, id).await?;
        let found = reconcile::get(self.ctx, &connection, name).await?;
        let (sums, differences, more) =
            reconcile::findings(self.ctx, &connection, name, FINDINGS_MAX).await?;
        let mut body = summed(&found);
        body["sums"] = json!(sums);
        body["differences"] = differences.iter().map(difference).collect();
        // The report has them all.
        body["has_more"] = json!(more);
        Response::json(200, &body)
    }

    pub(super) async fn report(
        &self,
        category: &str,
        id: &str,
        name: &str,
        page: bool,
    ) -> Result<Response> {
        let connection = self.read(category, id).await?;
        let found = reconcile::get(self.ctx, &connection, name).await?;
        let (sums, differences, more) =
            reconcile::findings(self.ctx, &connection, name, REPORT_ROWS_MAX).await?;
        let report = report::Report {
            title: connection.manifest()?.title,
            connection: &connection,
            reconciliation: &found,
            sums: &sums,
            differences: &differences,
            more,
        };
        Ok(match page {
            true => Response::private_html(200, report.html()),
            false => {
                let answer = Response {
                    status: 200,
                    headers: vec![("content-type", "text/csv; charset=utf-8".to_owned())],
                    body: report.csv(),
                };
                let file = format!("attachment; filename=\"{name}.csv\"");
                answer.private().header("content-disposition", file)
            }
        })
    }

    pub(super) async fn decide(
        &self,
        category: &str,
        id: &str,
        name: &str,
        about: &str,
        decision: &str,
    ) -> Result<Response> {
        let body: PlainRequest = self.request.read()?;
        let connection = self.held(category, id, &body.merchant_id).await?;
        let missing = || Error::not_found(format!("a decision {decision}"));
        let decision: Decision = serde_json::from_value(json!(decision)).map_err(|_| missing())?;
        let decided = reconcile::decide(self.ctx, &connection, name, about, decision).await?;
        Response::json(200, &difference(&decided))
    }
}

fn progress(backfill: &Backfill, connection: &Connection, now: DateTime<Utc>) -> Value {
    let (ends_at, because) = match backfill.estimate(connection.status, now) {
        Estimate::At(at) => (Some(at), None),
        Estimate::Unknown(because) => (None, Some(because)),
    };
    let counted = backfill.state != backfill::State::Counting;
    let rate = backfill.rate_per_minute();
    json!({
        "id": backfill.id,
        "state": backfill.state,
        "from": backfill.from,
        "to": backfill.to,
        "total": counted.then_some(backfill.total),
        "done": backfill.done,
        "failed": backfill.failed,
        "sent": backfill.sent,
        "rate_per_minute": rate.map(|rate| format!("{}.{:03}", rate / 1000, rate % 1000)),
        "ends_at": ends_at,
        "ends_at_unknown": because,
        "started_at": backfill.started_at,
        "updated_at": backfill.updated_at,
    })
}

fn summed(reconciliation: &Reconciliation) -> Value {
    let found = Class::ALL.map(|class| {
        let count = reconciliation.found.get(&class).copied().unwrap_or(0);
        (class.as_str().to_owned(), json!(count))
    });
    json!({
        "id": reconciliation.id,
        "cause": reconciliation.cause,
        "state": reconciliation.state,
        "from": reconciliation.from,
        "to": reconciliation.to,
        "next_day": (reconciliation.state == reconcile::State::Running)
            .then_some(reconciliation.day),
        "documents": { "ours": reconciliation.ours, "theirs": reconciliation.theirs },
        "under_way": reconciliation.under_way,
        "problem": reconciliation.problem,
        "found": Value::Object(found.into_iter().collect()),
        "started_at": reconciliation.started_at,
        "updated_at": reconciliation.updated_at,
    })
}

fn difference(one: &Difference) -> Value {
    let record = one
        .record
        .as_ref()
        .map(|row| json!({ "type": row.kind, "id": row.id }));
    let document = one.remote.as_ref().map(
        |remote| json!({ "id": remote.id, "version": remote.version, "number": remote.number }),
    );
    let todo = match (one.decided, one.class) {
        (Decided::Open, Class::Doubled) => "Delete one of the two over there, or accept it.",
        (Decided::Open, _) => "Repair it, or accept it.",
        (Decided::Sent, _) => "Nothing; the next reconciliation shows whether it is solved.",
        (Decided::Accepted, _) => "Nothing.",
    };
    json!({
        "id": one.id,
        "class": one.class,
        "day": one.day,
        "type": one.kind,
        "record": record,
        "behind": one.behind,
        "ours": one.ours,
        "theirs": one.theirs,
        "document": document,
        "detail": one.detail,
        "todo": todo,
        "decided": one.decided,
        "decided_at": one.decided_at,
    })
}
