//! Pushing records to a provider: the records of a whole batch of notices at once, so that what they
//! refer to is looked up and made together.

use super::backfill;
use super::daily;
use super::dependencies::{self, Failures};
use super::ledger::{self, Row, RowName};
use super::resync;
use super::session::{Session, Stop};
use super::waiting;
use super::writes::{Piece, Writing};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::{EventType, RecordKind, fingerprint};
use crate::model::ids::{MerchantId, RecordId};
use crate::model::money::AMOUNT_MAX;
use crate::model::notice::{Notice, RecordRef};
use crate::model::order::{Order, Refund};
use crate::model::order_record::OrderRecord;
use crate::model::payout::{Payout, PayoutRecord};
use crate::model::summary::{Summary, SummaryName};
use crate::oauth::connection::{self, Connection, Posting, Status};
use crate::providers::Fault;
use crate::providers::accounting::{
    Accounting, Dependency, Document, References, Subject, accounting, documents,
};
use crate::store::keys;
use crate::sync::push::{Form, Link, LinkState, Problem, RowRef};
use chrono::{DateTime, TimeDelta, Utc};
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
    pub kind: Kind,
    /// What of a day it sums, if it does.
    pub summary: Option<Box<Summary>>,
}

pub(super) enum Kind {
    Order {
        record: Box<OrderRecord>,
        /// How a receipt shows the order, where that is otherwise than the shop told it.
        received: Option<Box<Order>>,
    },
    Refund {
        refund: Box<Refund>,
        record: Option<Box<OrderRecord>>,
        /// The same of the refund.
        paid_back: Option<Box<Refund>>,
    },
    Payout(Box<Payout>),
}

impl Kind {
    pub(super) fn order(record: OrderRecord) -> Kind {
        Kind::Order {
            received: record.as_received().map(Box::new),
            record: Box::new(record),
        }
    }

    pub(super) fn refund(refund: Refund, record: Option<OrderRecord>) -> Kind {
        let paid_back = record
            .as_ref()
            .and_then(|record| record.as_paid_back(&refund));
        Kind::Refund {
            paid_back: paid_back.map(Box::new),
            refund: Box::new(refund),
            record: record.map(Box::new),
        }
    }
}

impl Record {
    fn subject(&self, provider: &dyn Accounting, connection: &Connection) -> Subject<'_> {
        match &self.kind {
            Kind::Order { record, received } => Subject::Order(record, received.as_deref()),
            Kind::Refund { refund, record, .. } => {
                let paid_back = self.paid_back(provider, connection);
                Subject::Refund(refund, record.as_deref(), paid_back)
            }
            Kind::Payout(payout) => Subject::Payout(payout),
        }
    }

    /// The refund as a receipt shows it, if it pays back what came in beyond its order and the books show
    /// that as owed: a summary or a receipt of the order does, and an invoice does not.
    pub(super) fn paid_back(
        &self,
        provider: &dyn Accounting,
        connection: &Connection,
    ) -> Option<&Refund> {
        let Kind::Refund {
            record: Some(record),
            paid_back,
            ..
        } = &self.kind
        else {
            return None;
        };
        let day = record.filed()?.day;
        let usual = provider.order_forms().first().copied();
        let alone = connection.settings.orders_as.or(usual);
        let shown = connection.posting(day) == Posting::Daily || alone == Some(Form::SalesReceipt);
        // Where what was sold is an invoice for good, it stands there as it was paid first.
        let follows = usual == Some(Form::SalesReceipt);
        paid_back.as_deref().filter(|_| shown && follows)
    }

    /// The summary in which it is posted at `connection`, of which `link` is its own row; `None` for what
    /// is posted by itself: on other days than those of summaries, and what stands there by itself already.
    pub(super) fn summed_in(&self, connection: &Connection, link: &Link) -> Option<SummaryName> {
        let name = match &self.kind {
            _ if self.summary.is_some() => return None,
            Kind::Order { record, .. } => {
                let order = record.order.as_ref()?;
                let filed = record.filed()?;
                SummaryName {
                    day: filed.day,
                    channel: filed.channel,
                    currency: order.currency,
                    cards: false,
                }
            }
            Kind::Refund { refund, record, .. } => SummaryName {
                day: refund.refunded_at.date_naive(),
                channel: record
                    .as_ref()
                    .and_then(|record| record.filed())
                    .map_or_else(Default::default, |filed| filed.channel),
                currency: refund.amount.currency,
                cards: refund.to_gift_card(),
            },
            // There are few of them, and each is one movement on the bank's statement.
            Kind::Payout(_) => return None,
        };
        let daily = link.is_summed() || connection.posting(name.day) == Posting::Daily;
        (daily && link.held_form().is_none()).then_some(name)
    }

    /// Whether a summary is to hold it: what is paid in full, and what went back of that.
    pub(super) fn is_settled(&self) -> bool {
        match &self.kind {
            Kind::Order { record, .. } => record.is_paid(),
            Kind::Refund { record, .. } => record.as_ref().is_none_or(|record| record.is_paid()),
            Kind::Payout(_) => true,
        }
    }

    /// When it happened in the shop; `None` while its order has not arrived. Of a summary, when its day
    /// was about to end.
    pub(super) fn at(&self) -> Option<DateTime<Utc>> {
        if let Some(summary) = &self.summary {
            return Some(summary.name.ends() - TimeDelta::nanoseconds(1));
        }
        match &self.kind {
            Kind::Order { record, .. } => Some(record.order.as_ref()?.placed_at),
            Kind::Refund { refund, .. } => Some(refund.refunded_at),
            Kind::Payout(payout) => Some(payout.paid_at),
        }
    }

    /// Whether the merchant does not want it to be sent, of which `link` is its own row: it is older than
    /// what he wants. What is in a summary stays there, as long as that is not older as well.
    pub(super) fn is_early(&self, connection: &Connection, link: &Link) -> bool {
        let Some(from) = connection.settings.records_from else {
            return false;
        };
        let at = self.at();
        match self.summed_in(connection, link) {
            Some(name) if link.is_summed() => name.ends() <= from,
            _ => at.is_some_and(|at| at < from),
        }
    }

    /// The documents that it needs by itself in the books of `connection`, of which `link` is its own row.
    /// What stands there in one form stays in it.
    pub(super) fn documents(
        &self,
        provider: &dyn Accounting,
        connection: &Connection,
        link: &Link,
    ) -> Vec<Document<'_>> {
        let nothing = self.summary.as_ref().is_some_and(|one| one.is_empty());
        // A summary of nothing is written only where something stands.
        if self.summed_in(connection, link).is_some() || nothing && link.held_form().is_none() {
            return Vec::new();
        }
        let usual = provider.order_forms().first().copied();
        // All that a summary holds is paid, so it needs no document that payments settle.
        let asked = connection
            .settings
            .orders_as
            .filter(|_| self.summary.is_none());
        let wanted = asked.or(usual);
        let held = link
            .held_form()
            .filter(|form| provider.order_forms().contains(form));
        let form = held.or(wanted).unwrap_or(Form::Invoice);
        documents(self.subject(provider, connection), form, provider)
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
    // What a backfill brings goes last, and by itself: it gives way to everything else.
    let mut merchants: BTreeMap<(bool, MerchantId), BTreeSet<Target>> = BTreeMap::new();
    for (notice, target) in notices.iter().zip(&targets) {
        if let Some(target) = target {
            merchants
                .entry((notice.backfill.is_some(), target.merchant_id.clone()))
                .or_default()
                .insert(target.clone());
        }
    }
    let mut failed: BTreeMap<Target, Error> = BTreeMap::new();
    for ((background, merchant), wanted) in merchants {
        let wanted: Vec<Target> = wanted.into_iter().collect();
        let pushed = push_merchant(ctx, provider, &merchant, &wanted, background);
        for (target, error) in pushed.await {
            failed.insert(target, error);
        }
    }
    let mut outcomes = Vec::with_capacity(notices.len());
    for (notice, target) in notices.iter().zip(targets) {
        outcomes.push(match target.and_then(|target| failed.get(&target)) {
            Some(error) if error.retry_after().is_some() => Err(error.again()),
            Some(error) => Err(Error::new(Code::UpstreamFailed, error.chain())),
            None if notice.summing.is_some() => daily::step(ctx, provider, notice).await,
            None if notice.resync.is_some() => resync::step(ctx, provider, notice).await,
            None if backfill::is_step(notice) => backfill::step(ctx, provider, notice).await,
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
    let kept = matches!(
        notice.record.kind,
        RecordKind::Order | RecordKind::Refund | RecordKind::Payout
    );
    kept.then(|| Target {
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
    background: bool,
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
        match push_or_wait(ctx, provider, connection, wanted, background).await {
            Ok(some) => failed.extend(some),
            // A merchant's other books do not wait for these.
            Err(error) => failed.extend(all(wanted, &error)),
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
    background: bool,
) -> Result<Vec<(Target, Error)>> {
    for _ in 0..STATUS_ROUNDS_MAX {
        match connection.status {
            Status::Live => {
                let pushed = push_connection(ctx, provider, &connection, wanted, background);
                match pushed.await {
                    Err(error) if error.code() == Code::ConnectionReauthRequired => {}
                    outcome => return outcome,
                }
            }
            Status::Paused | Status::ReauthRequired => {}
            Status::Pending | Status::Disconnected => return Ok(Vec::new()),
        }
        waiting::note(ctx, provider, &connection, wanted).await?;
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

/// One record to be pushed, and the notices' targets that brought it up.
struct Work {
    asked: Vec<Target>,
    name: RowName,
    record: Record,
}

/// One document to be pushed.
struct Job<'a> {
    work: &'a Work,
    document: Document<'a>,
    name: RowName,
}

async fn push_connection(
    ctx: &Ctx,
    provider: &'static dyn Accounting,
    connection: &Connection,
    wanted: &[Target],
    background: bool,
) -> Result<Vec<(Target, Error)>> {
    let session = Session::new(ctx, provider, connection, wanted.len(), background).await?;
    if !background {
        session.gather().await?;
    }
    let works = collect(ctx, connection, wanted).await?;
    let names: Vec<RowName> = works.iter().map(|work| work.name.clone()).collect();
    let rows = Row::load_many(ctx, connection, &names).await?;
    let mut jobs = Vec::new();
    let mut days = BTreeSet::new();
    for (work, row) in works.iter().zip(rows) {
        let rev = work.record.rev;
        let documents = work.record.documents(provider, connection, &row.link);
        let early = work.record.is_early(connection, &row.link);
        let summed_in = work.record.summed_in(connection, &row.link);
        let settled = work.record.is_settled() || row.link.summed.is_some();
        if let Some(name) = summed_in.filter(|_| settled && !early) {
            let paid_back = work.record.paid_back(provider, connection).is_some();
            if daily::note(ctx, row, &name, &work.record, paid_back).await? {
                days.insert(name.day);
            }
            continue;
        }
        // What waited and is no longer wanted waits no more.
        let unwanted = documents.is_empty() && row.link.waiting.is_some();
        let wanted = !documents.is_empty() || settled && row.link.held_form().is_none();
        if (early && wanted) || unwanted {
            let leave_out = |link: &Link| link.leave_out(rev, ctx.now());
            ledger::change(ctx, connection, &work.name, leave_out).await?;
            continue;
        }
        jobs.extend(documents.into_iter().map(|document| Job {
            work,
            document,
            name: RowName {
                row: RowRef {
                    kind: document.form().kind(),
                    id: document.id(),
                },
                order_id: work.name.order_id.clone(),
            },
        }));
    }
    for day in days {
        daily::ask(ctx, connection, day).await?;
    }
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    // A refusal that concerns the company concerns every record.
    let (settings, references, failures) = match prepare(&session, &jobs).await {
        Ok(prepared) => prepared,
        Err(stop) => {
            // What ends with an error ends so for all of them, and is noted of each.
            let mut ended = Ok(());
            for job in &jobs {
                ended = ended.and(end(&session, job, stop.alike()).await);
            }
            ended?;
            return stop.into_error().map(|_| Vec::new());
        }
    };
    let prepared = Prepared {
        session: &session,
        settings,
        references,
        failures,
    };
    let mut failed = Vec::new();
    let mut links = BTreeMap::new();
    // What is referred to goes first.
    let (first, then): (Vec<Job>, Vec<Job>) = jobs
        .into_iter()
        .partition(|job| job.document.refers_to().is_none());
    for jobs in [first, then] {
        let (pieces, mut ended) = prepared.pieces(&jobs, &links).await?;
        let (indexes, pieces): (Vec<usize>, Vec<Piece>) = pieces.into_iter().unzip();
        let written = Writing::run(&session, &pieces).await?;
        for (index, (result, link)) in indexes.into_iter().zip(written) {
            links.insert(jobs[index].name.row.clone(), link);
            if let Err(stop) = result {
                ended.push((index, stop));
            }
        }
        for (index, stop) in ended {
            let job = &jobs[index];
            match end(&session, job, stop).await {
                Ok(()) => {}
                Err(error) if error.code() == Code::ConnectionReauthRequired => return Err(error),
                Err(error) => {
                    let targets = job.work.asked.iter().cloned();
                    failed.extend(targets.map(|asked| (asked, error.again())));
                }
            }
        }
    }
    Ok(failed)
}

/// Reads everything that `wanted` brings up, each record once and as it was read last.
async fn collect(ctx: &Ctx, connection: &Connection, wanted: &[Target]) -> Result<Vec<Work>> {
    let mut works: BTreeMap<RowName, Work> = BTreeMap::new();
    for asked in wanted {
        for (target, record) in load(ctx, connection, asked).await? {
            let name = RowName::of(&target);
            let mut asked = vec![asked.clone()];
            if let Some(before) = works.remove(&name) {
                asked.extend(before.asked);
            }
            let work = Work {
                asked,
                name: name.clone(),
                record,
            };
            works.insert(name, work);
        }
    }
    Ok(works.into_values().collect())
}

/// Notes why a document is not written. An error means that its message comes again.
async fn end(session: &Session<'_>, job: &Job<'_>, stop: Stop) -> Result<()> {
    let (ctx, connection, rev) = (session.ctx, session.connection, job.work.record.rev);
    match stop.into_error() {
        Ok((code, detail)) => {
            let problem = Problem { code, detail };
            ledger::park(ctx, connection, &job.name, rev, problem).await
        }
        Err(error) => {
            ledger::fail(ctx, connection, &job.name, rev, &error).await;
            Err(error)
        }
    }
}

/// What all documents of one push need.
struct Prepared<'a> {
    session: &'a Session<'a>,
    settings: Value,
    references: References,
    failures: Failures,
}

/// A document with its position, or why there is none.
type Pieces<'j> = (Vec<(usize, Piece<'j>)>, Vec<(usize, Stop)>);

impl Prepared<'_> {
    /// Builds what `jobs` write. `links` are the rows of what was written before.
    async fn pieces<'j>(
        &self,
        jobs: &'j [Job<'j>],
        links: &BTreeMap<RowRef, Link>,
    ) -> Result<Pieces<'j>> {
        let (mut pieces, mut ended) = (Vec::new(), Vec::new());
        for (index, job) in jobs.iter().enumerate() {
            match self.piece(job, links).await {
                Ok(piece) => pieces.push((index, piece)),
                Err(stop) => ended.push((index, stop)),
            }
        }
        Ok((pieces, ended))
    }

    async fn piece<'j>(
        &self,
        job: &'j Job<'j>,
        links: &BTreeMap<RowRef, Link>,
    ) -> Result<Piece<'j>, Stop> {
        let (provider, document) = (self.session.provider, job.document);
        for dependency in provider.dependencies(document, &self.settings)? {
            if let Some(fault) = self.failures.get(&(dependency.kind, dependency.key)) {
                return Err(Stop::Theirs(fault.clone()));
            }
        }
        let on = match document.refers_to() {
            None => None,
            Some((form, id)) => Some(self.on(form, id, links).await?),
        };
        check_size(document)?;
        let nothing = !provider.posts(document, &self.settings)?;
        let body = provider.body(document, &self.references, on.as_deref(), &self.settings);
        let body = match body {
            // What is not posted needs no account either.
            Err(_) if nothing => Value::Null,
            body => body?,
        };
        Ok(Piece {
            document,
            name: job.name.clone(),
            rev: job.work.record.rev,
            content: fingerprint(&provider.essence(document, &body, &self.references)),
            body,
            nothing,
        })
    }

    /// The provider's id of what a document refers to.
    async fn on(
        &self,
        form: Form,
        id: String,
        links: &BTreeMap<RowRef, Link>,
    ) -> Result<String, Stop> {
        let session = self.session;
        let kind = form.kind();
        let name = RowName {
            row: RowRef { kind, id },
            order_id: None,
        };
        let link = match links.get(&name.row) {
            Some(link) => link.clone(),
            None => {
                let row = Row::load(session.ctx, session.connection, &name).await?;
                row.link
            }
        };
        if let Some(remote) = link.remote.filter(|_| link.gone.is_none()) {
            return Ok(remote.id);
        }
        let (title, what) = (session.provider.manifest().title, form.title());
        Err(Stop::Theirs(match (link.state, link.problem) {
            (LinkState::Parked, Some(problem)) => Fault::Refused {
                code: "depends_on_parked".to_owned(),
                detail: format!(
                    "the {what} that this belongs to is not in {title}: {}; once that is solved and \
                     sent again, this follows",
                    problem.detail
                ),
            },
            _ => Fault::Later {
                detail: format!("the {what} that this belongs to is not in {title} yet"),
            },
        }))
    }
}

/// Refuses a sum of so many orders that no system holds it.
fn check_size(document: Document) -> Result<(), Fault> {
    let total = document.total();
    if total.amount.abs() <= AMOUNT_MAX {
        return Ok(());
    }
    Err(Fault::Refused {
        code: "too_large".to_owned(),
        detail: format!(
            "the orders of this day make {total}, which is more than one document can hold; post this \
             day by hand"
        ),
    })
}

/// Reads what `target` is now, with the refunds of an order: they may have waited for it. Empty while
/// nothing of it has arrived. Summaries are those of `connection`.
pub(super) async fn load(
    ctx: &Ctx,
    connection: &Connection,
    target: &Target,
) -> Result<Vec<(Target, Record)>> {
    if target.record.kind == RecordKind::Payout {
        return Ok(load_payout(ctx, target).await?.into_iter().collect());
    }
    if SummaryName::parse(&target.record.id).is_some() {
        let summary = daily::load(ctx, connection, &target.record).await?;
        return Ok(summary
            .map(|found| (target.clone(), found))
            .into_iter()
            .collect());
    }
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
        kind: Kind::order(order),
        summary: None,
    };
    records.insert(0, (target.clone(), record));
    Ok(records)
}

async fn load_payout(ctx: &Ctx, target: &Target) -> Result<Option<(Target, Record)>> {
    let key = keys::record(&target.merchant_id, RecordKind::Payout, &target.record.id);
    let Some(item) = ctx.store.get(&key).await? else {
        return Ok(None);
    };
    let Some(payout) = item.read::<PayoutRecord>()?.payout else {
        return Ok(None);
    };
    let record = Record {
        rev: item.rev,
        kind: Kind::Payout(Box::new(payout)),
        summary: None,
    };
    Ok(Some((target.clone(), record)))
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
    let kind = Kind::refund(item.read()?, order);
    Ok(Some((
        target.clone(),
        Record {
            rev: item.rev,
            kind,
            summary: None,
        },
    )))
}

/// The company's settings, and everything that the documents refer to.
async fn prepare(
    session: &Session<'_>,
    jobs: &[Job<'_>],
) -> Result<(Value, References, Failures), Stop> {
    let settings = session.settings().await?;
    let mut wanted: BTreeMap<_, Dependency> = BTreeMap::new();
    for job in jobs {
        // A document that cannot be mapped is parked by itself, later.
        for dependency in session
            .provider
            .dependencies(job.document, &settings)
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
