//! Pushing records to a provider: the records of a whole batch of notices at once, so that what they
//! refer to is looked up and made together.

use super::dependencies::{self, Failures};
use super::ledger::{self, RACE_ROUNDS_MAX, Row};
use super::resync;
use super::session::{Session, Stop};
use super::waiting;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::{EventType, RecordKind, fingerprint};
use crate::model::ids::{MerchantId, RecordId};
use crate::model::notice::{Notice, RecordRef};
use crate::model::order::Refund;
use crate::model::order_record::OrderRecord;
use crate::oauth::connection::{self, Connection, Status};
use crate::providers::{Accounting, Dependency, Document, Fault, References, accounting};
use crate::store::keys;
use crate::sync::push::{Link, PUSH_ROUNDS_MAX, Problem, Step};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// How often a connection is looked at again whose status changed under our hands.
const STATUS_ROUNDS_MAX: usize = 4;

/// What a notice asks to be pushed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    pub merchant_id: MerchantId,
    pub record: RecordRef,
    pub order_id: Option<RecordId>,
}

/// A record as it is now.
pub(super) struct Record {
    /// The revision of the document that decides what is pushed.
    pub rev: u64,
    kind: Kind,
}

enum Kind {
    Sale(Box<OrderRecord>),
    Refund(Box<Refund>, Option<Box<OrderRecord>>),
}

impl Record {
    fn document(&self) -> Option<Document<'_>> {
        match &self.kind {
            Kind::Sale(record) => record.order.as_ref().map(Document::Sale),
            Kind::Refund(refund, order) => {
                let order = order.as_ref().and_then(|record| record.order.as_ref());
                Some(Document::Refund(refund, order))
            }
        }
    }

    /// When it happened in the shop.
    fn at(&self) -> Option<DateTime<Utc>> {
        Some(match self.document()? {
            Document::Sale(order) => order.placed_at,
            Document::Refund(refund, _) => refund.refunded_at,
        })
    }
}

/// Pushes what `notices` are about to every live connection of their merchants, and takes up what
/// waited for a connection that is live again. Each result stands where its notice stands.
pub async fn push(ctx: &Ctx, provider: &str, notices: &[Notice]) -> Vec<Result<()>> {
    let Some(provider) = accounting(provider) else {
        return notices
            .iter()
            .map(|_| Err(Error::internal("no such provider")))
            .collect();
    };
    // What was on its way when a category was switched off is dropped, as its rule drops the rest.
    if let Err(error) = ctx.config.enabled(provider.manifest().category) {
        tracing::info!(dropped = notices.len(), "{}", error.detail());
        return notices.iter().map(|_| Ok(())).collect();
    }
    let targets: Vec<Option<Target>> = notices.iter().map(target).collect();
    let mut merchants: BTreeMap<MerchantId, BTreeSet<Target>> = BTreeMap::new();
    for target in targets.iter().flatten() {
        merchants
            .entry(target.merchant_id.clone())
            .or_default()
            .insert(target.clone());
    }
    let mut failed: BTreeMap<Target, Error> = BTreeMap::new();
    for (merchant, wanted) in merchants {
        let wanted: Vec<Target> = wanted.into_iter().collect();
        for (target, error) in push_merchant(ctx, provider, &merchant, &wanted).await {
            failed.insert(target, error);
        }
    }
    let mut outcomes = Vec::with_capacity(notices.len());
    for (notice, target) in notices.iter().zip(targets) {
        outcomes.push(match target.and_then(|target| failed.get(&target)) {
            Some(error) if error.retry_after().is_some() => Err(error.again()),
            Some(error) => Err(Error::new(Code::UpstreamFailed, error.chain())),
            None if notice.resync.is_some() => resync::step(ctx, provider, notice).await,
            None if began_again(notice) => waiting::take_up(ctx, provider, notice).await,
            None => Ok(()),
        });
    }
    outcomes
}

/// Whether a notice says that a connection is live. What waited for it comes with the same event, and
/// with its own record.
fn began_again(notice: &Notice) -> bool {
    notice.kind == EventType::ConnectionConnected && notice.record.kind == RecordKind::Connection
}

/// The record that a notice is about, if accounting keeps it.
fn target(notice: &Notice) -> Option<Target> {
    matches!(notice.record.kind, RecordKind::Order | RecordKind::Refund).then(|| Target {
        merchant_id: notice.merchant_id.clone(),
        record: notice.record.clone(),
        order_id: notice.order_id.clone(),
    })
}

/// Returns the targets that have to be tried again, with the reason.
async fn push_merchant(
    ctx: &Ctx,
    provider: &'static dyn Accounting,
    merchant: &MerchantId,
    wanted: &[Target],
) -> Vec<(Target, Error)> {
    let mut failed = Vec::new();
    let connections = match connection::list(ctx, merchant).await {
        Ok(connections) => connections,
        Err(error) => return all(wanted, &error),
    };
    for (_, connection) in connections {
        if connection.provider != provider.manifest().name {
            continue;
        }
        match push_or_wait(ctx, provider, connection, wanted).await {
            Ok(some) => failed.extend(some),
            Err(error) => return all(wanted, &error),
        }
    }
    failed
}

/// Pushes to a connection that is live. For one that will be live again everything is noted, and the
/// connection is read once more afterwards: whoever made it live in between may have looked through
/// the ledger before the note stood there, so then the push is ours.
async fn push_or_wait(
    ctx: &Ctx,
    provider: &'static dyn Accounting,
    mut connection: Connection,
    wanted: &[Target],
) -> Result<Vec<(Target, Error)>> {
    for _ in 0..STATUS_ROUNDS_MAX {
        match connection.status {
            Status::Live => match push_connection(ctx, provider, &connection, wanted).await {
                Err(error) if error.code() == Code::ConnectionReauthRequired => {}
                outcome => return outcome,
            },
            Status::Paused | Status::ReauthRequired => {}
            Status::Pending | Status::Disconnected => return Ok(Vec::new()),
        }
        waiting::note(ctx, &connection, wanted).await?;
        tracing::info!(
            merchant_id = %connection.merchant_id, connection_id = %connection.id,
            "waits until the connection is live again"
        );
        (_, connection) = connection::load(ctx, &connection.merchant_id, &connection.id).await?;
        if connection.status != Status::Live {
            return Ok(Vec::new());
        }
    }
    Err(Error::new(
        Code::Busy,
        "this connection is being changed; it is tried again",
    ))
}

fn all(wanted: &[Target], error: &Error) -> Vec<(Target, Error)> {
    let each = |target: &Target| (target.clone(), error.again());
    wanted.iter().map(each).collect()
}

async fn push_connection(
    ctx: &Ctx,
    provider: &'static dyn Accounting,
    connection: &Connection,
    wanted: &[Target],
) -> Result<Vec<(Target, Error)>> {
    let session = Session::new(ctx, provider, connection).await?;
    let mut records = Vec::new();
    for asked in wanted {
        for (target, record) in load(ctx, asked).await? {
            let from = connection.settings.records_from;
            if from.is_some_and(|from| record.at().is_some_and(|at| at < from)) {
                let leave_out = |link: &Link| link.leave_out(record.rev, ctx.now());
                ledger::change(ctx, connection, &target, leave_out).await?;
                continue;
            }
            records.push(Work {
                asked: asked.clone(),
                target,
                record,
            });
        }
    }
    if records.is_empty() {
        return Ok(Vec::new());
    }
    // A refusal that concerns the company concerns every record.
    let prepared = prepare(&session, &records).await;
    let (settings, references, failures) = match prepared {
        Ok(prepared) => prepared,
        Err(stop) => {
            let outcome = stop.into_error();
            for Work { target, record, .. } in &records {
                match &outcome {
                    Ok((code, detail)) => {
                        let problem = Problem {
                            code: code.clone(),
                            detail: detail.clone(),
                        };
                        ledger::park(ctx, connection, target, record.rev, problem).await?;
                    }
                    Err(error) => ledger::fail(ctx, connection, target, record.rev, error).await,
                }
            }
            return outcome.map(|_| Vec::new());
        }
    };
    let mut failed = Vec::new();
    for Work {
        asked,
        target,
        record,
    } in records
    {
        let mut pushed = Ok(());
        for _ in 0..RACE_ROUNDS_MAX {
            pushed = push_record(
                &session,
                &target,
                &record,
                &settings,
                &references,
                &failures,
            )
            .await;
            if !matches!(&pushed, Err(Stop::Ours(error)) if error.code() == Code::Busy) {
                break;
            }
        }
        let outcome = match pushed {
            Ok(()) => Ok(()),
            Err(stop) => match stop.into_error() {
                Ok((code, detail)) => {
                    let problem = Problem { code, detail };
                    ledger::park(ctx, connection, &target, record.rev, problem).await
                }
                Err(error) if error.code() == Code::ConnectionReauthRequired => return Err(error),
                Err(error) => {
                    ledger::fail(ctx, connection, &target, record.rev, &error).await;
                    Err(error)
                }
            },
        };
        if let Err(error) = outcome {
            failed.push((asked, error));
        }
    }
    Ok(failed)
}

/// One record to be pushed, and the notice's target that brought it up.
struct Work {
    asked: Target,
    target: Target,
    record: Record,
}

/// Reads what `target` is now, with the refunds that wait for it: a refund of an order is booked when
/// the order is, or the books would show money going back that never came. Empty when there is nothing
/// to push yet.
pub(super) async fn load(ctx: &Ctx, target: &Target) -> Result<Vec<(Target, Record)>> {
    let Some(order_id) = &target.order_id else {
        return Ok(load_refund(ctx, target, None).await?.into_iter().collect());
    };
    let Some(item) = ctx
        .store
        .get(&keys::order(&target.merchant_id, order_id))
        .await?
    else {
        return Ok(Vec::new());
    };
    let order: OrderRecord = item.read()?;
    if !order.is_paid() {
        return Ok(Vec::new());
    }
    if target.record.kind == RecordKind::Refund {
        return Ok(load_refund(ctx, target, Some(order))
            .await?
            .into_iter()
            .collect());
    }
    let mut records = Vec::new();
    for refund in order.refunds.keys() {
        let record = RecordRef {
            kind: RecordKind::Refund,
            id: refund.to_string(),
        };
        let refund = Target {
            record,
            ..target.clone()
        };
        records.extend(load_refund(ctx, &refund, Some(order.clone())).await?);
    }
    let record = Record {
        rev: item.rev,
        kind: Kind::Sale(Box::new(order)),
    };
    records.insert(0, (target.clone(), record));
    Ok(records)
}

async fn load_refund(
    ctx: &Ctx,
    target: &Target,
    order: Option<OrderRecord>,
) -> Result<Option<(Target, Record)>> {
    let key = keys::record(&target.merchant_id, RecordKind::Refund, &target.record.id);
    let Some(item) = ctx.store.get(&key).await? else {
        return Ok(None);
    };
    let kind = Kind::Refund(Box::new(item.read()?), order.map(Box::new));
    Ok(Some((
        target.clone(),
        Record {
            rev: item.rev,
            kind,
        },
    )))
}

/// The company's settings, and everything that the records refer to.
async fn prepare(
    session: &Session<'_>,
    records: &[Work],
) -> Result<(Value, References, Failures), Stop> {
    let settings = session.settings().await?;
    let mut wanted: BTreeMap<_, Dependency> = BTreeMap::new();
    for document in records.iter().filter_map(|work| work.record.document()) {
        // A record that cannot be mapped is parked by itself, later.
        for dependency in session
            .provider
            .dependencies(document, &settings)
            .unwrap_or_default()
        {
            wanted
                .entry((dependency.kind, dependency.key.clone()))
                .or_insert(dependency);
        }
    }
    let wanted = wanted.into_values().collect();
    let (references, failures) = dependencies::resolve(session, wanted).await?;
    Ok((settings, references, failures))
}

async fn push_record(
    session: &Session<'_>,
    target: &Target,
    record: &Record,
    settings: &Value,
    references: &References,
    failures: &Failures,
) -> Result<(), Stop> {
    let provider = session.provider;
    let Some(document) = record.document() else {
        return Ok(());
    };
    for dependency in provider.dependencies(document, settings)? {
        if let Some(fault) = failures.get(&(dependency.kind, dependency.key)) {
            return Err(Stop::Theirs(fault.clone()));
        }
    }
    let body = provider.body(document, references, settings)?;
    let content = fingerprint(&body);
    let identity = format!(
        "{}/{}/{}",
        session.connection.id,
        target.record.kind.as_str(),
        target.record.id
    );
    let mut row = Row::load(session.ctx, session.connection, target).await?;
    for _ in 0..PUSH_ROUNDS_MAX {
        let step = row.link.plan(&identity, &content, record.rev);
        let (request_id, remote) = match &step {
            Step::Done => {
                if let Some(seen) = row.link.seen(record.rev, session.ctx.now()) {
                    row.store(session.ctx, seen).await?;
                }
                return Ok(());
            }
            Step::Create { request_id } => (request_id, None),
            Step::Update { request_id, remote } => (request_id, Some(remote)),
        };
        let now = session.ctx.now();
        if let Some(intended) = row.link.intend(&step, &content, record.rev, now) {
            row.store(session.ctx, intended).await?;
        }
        let request = provider.write(&session.tenant, document, &body, remote, request_id);
        let read = |answer: &_| provider.read_written(document, answer);
        match session.call(request, read).await {
            Ok((remote, answer)) => {
                let settled = row.link.settle(remote, &content, session.ctx.now());
                row.store(session.ctx, settled).await?;
                if let Some(fault) = provider.written_fault(document, &answer)
                    && row.link.content.is_some()
                {
                    return Err(Stop::Theirs(fault));
                }
            }
            Err(Stop::Theirs(Fault::Stale)) => {
                let Some(remote) = remote else {
                    return Err(Stop::Theirs(Fault::Stale));
                };
                let request = provider.read(&session.tenant, document, remote);
                let (remote, _) = session.call(request, read).await?;
                let reread = row.link.reread(remote, session.ctx.now());
                row.store(session.ctx, reread).await?;
            }
            Err(Stop::Theirs(Fault::Refused { code, detail })) => {
                let problem = Problem { code, detail };
                let refused = row.link.refuse(problem, session.ctx.now());
                row.store(session.ctx, refused).await?;
                return Ok(());
            }
            Err(stop) => return Err(stop),
        }
    }
    Err(Stop::Theirs(Fault::Stale))
}
