//! Writing documents: many in one call where the provider takes them so, each with a row of its own.
//!
//! A call is sealed before it is made: the intents of its rows are written first, each naming the call,
//! and then its very bytes, on condition that nothing stands under its name. Whoever meets an open
//! intent looks for its call. A sealed one is sent again, to the letter and under the same key, so it
//! is known what became of it, and every row of it is settled. For one that is not there yet a note is
//! left that it never will be, on the same condition: so either it is sealed or given up, and who
//! sealed it alone may make it.

use super::ledger::{RACE_ROUNDS_MAX, Row, RowName};
use super::pull;
use super::session::{Session, Stop};
use super::two_ways::Meeting;
use crate::error::{Code, Error, Result};
use crate::model::ids::RecordId;
use crate::model::money::Money;
use crate::providers::Fault;
use crate::providers::accounting::{Document, Written};
use crate::store::{Condition, Write, WriteError, keys};
use crate::sync::conflict::{Fields, Outcome, Seen, Standing, Verdict};
use crate::sync::push::{
    Call, CallItem, Form, Goal, Link, PUSH_ROUNDS_MAX, Problem, Recall, Remote, RowRef, Step,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::TimeDelta;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write as _};

/// Most bytes of a call with several documents. Xero asks for less than 3.5 MB.
const CALL_BYTES_MAX: usize = 1_000_000;
/// Most bytes of a sealed call; an item of DynamoDB holds 400 KB with everything.
const SEALED_BYTES_MAX: usize = 350_000;
/// How long a call is kept. Whoever finds an open intent of a call that is gone takes it as never made,
/// so this is longer than any connection is paused.
const CALL_LIFE: TimeDelta = TimeDelta::days(1000);
/// Rounds over the documents of one push: the steps of one, and lost races.
const ROUNDS_MAX: usize = PUSH_ROUNDS_MAX + RACE_ROUNDS_MAX;

/// One document to be written.
pub(super) struct Piece<'a> {
    pub document: Document<'a>,
    pub name: RowName,
    /// The revision of the record that decides what is written.
    pub rev: u64,
    pub body: Value,
    /// The fingerprint of what of the body matters.
    pub content: String,
    /// Whether nothing of it is to be posted.
    pub nothing: bool,
}

/// The position of a document that is to be written, and what it takes the place of.
type Wanted = (usize, Option<Remote>);

/// What stands under the name of a call.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Sealed {
    Sealed(Call),
    /// Somebody found its intent before it was sealed, so it is never made.
    GivenUp,
}

/// The bytes of a request, deflated and as text.
fn pack(body: &str) -> Result<String> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(body.as_bytes())
        .map_err(Error::internal)?;
    Ok(STANDARD.encode(encoder.finish().map_err(Error::internal)?))
}

fn unpack(packed: &str) -> Result<String> {
    let bytes = STANDARD.decode(packed).map_err(Error::internal)?;
    let mut body = String::new();
    DeflateDecoder::new(&bytes[..])
        .read_to_string(&mut body)
        .map_err(Error::internal)?;
    Ok(body)
}

/// The documents of one push, which do not refer to each other.
pub(super) struct Writing<'a, 'p> {
    session: &'a Session<'a>,
    pieces: &'p [Piece<'p>],
    rows: Vec<Row<'a>>,
    results: Vec<Option<Result<(), Stop>>>,
    /// What the provider refused, as long as nothing else of its order was written afterwards.
    refused: BTreeSet<usize>,
}

impl<'a, 'p> Writing<'a, 'p> {
    /// Writes `pieces`. Each result stands where its piece stands, with the row at the end; what was
    /// refused is parked and thus done.
    pub(super) async fn run(
        session: &'a Session<'a>,
        pieces: &'p [Piece<'p>],
    ) -> Result<Vec<(Result<(), Stop>, Link)>> {
        let names: Vec<RowName> = pieces.iter().map(|piece| piece.name.clone()).collect();
        let rows = Row::load_many(session.ctx, session.connection, &names).await?;
        let mut writing = Writing {
            session,
            pieces,
            rows,
            results: pieces.iter().map(|_| None).collect(),
            refused: BTreeSet::new(),
        };
        for _ in 0..ROUNDS_MAX {
            if writing.results.iter().all(Option::is_some) {
                break;
            }
            writing.round().await;
        }
        let busy = || Err(Stop::Theirs(Fault::Stale));
        let results = writing.results.into_iter().zip(writing.rows);
        Ok(results
            .map(|(result, row)| (result.unwrap_or_else(busy), row.link))
            .collect())
    }

    /// Takes every document that is not done one step on.
    async fn round(&mut self) {
        let mut open_calls: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        // Changes go before creations: a payment that settles less makes room for another.
        let mut writes: BTreeMap<(bool, Form), Vec<Wanted>> = BTreeMap::new();
        for index in 0..self.pieces.len() {
            if self.results[index].is_some() {
                continue;
            }
            let piece = &self.pieces[index];
            let form = piece.document.form();
            let fixed = self.session.provider.is_fixed(form);
            let goal = Goal {
                form,
                content: &piece.content,
                record_rev: piece.rev,
                nothing: piece.nothing,
            };
            match self.rows[index].link.plan(goal, fixed) {
                Step::Done => self.done(index).await,
                Step::Nothing => {
                    let link = self.rows[index].link.nothing(goal, self.session.ctx.now());
                    self.end(index, link).await;
                }
                Step::Stuck => {
                    let problem = stuck(self.session, form, piece.nothing);
                    self.bar(index, problem).await;
                }
                Step::Conclude(call) => open_calls.entry(call).or_default().push(index),
                Step::Create => writes.entry((true, form)).or_default().push((index, None)),
                Step::Update(remote) => {
                    let policy = &self.session.connection.settings.conflicts;
                    if let Some(problem) = self.rows[index].link.barred(policy, form) {
                        self.bar(index, problem).await;
                        continue;
                    }
                    let writes = writes.entry((false, form)).or_default();
                    writes.push((index, Some(remote)));
                }
            }
        }
        for (call, indexes) in open_calls {
            if let Err(stop) = self.conclude(&call, &indexes).await {
                self.stop(&indexes, &stop);
            }
        }
        for ((_, form), mut wanted) in writes {
            while !wanted.is_empty() {
                let chunk = self.chunk(form, &mut wanted).await;
                let indexes: Vec<usize> = chunk.iter().map(|(index, _)| *index).collect();
                if let Err(stop) = self.write(form, chunk).await {
                    self.stop(&indexes, &stop);
                }
            }
        }
    }

    async fn done(&mut self, index: usize) {
        let (now, rev) = (self.session.ctx.now(), self.pieces[index].rev);
        let seen = self.rows[index].link.seen(rev, now);
        let stored = match seen {
            Some(seen) => self.store(index, seen).await,
            None => Ok(true),
        };
        match stored {
            Ok(true) => self.results[index] = Some(Ok(())),
            Ok(false) => {}
            Err(error) => self.results[index] = Some(Err(error.into())),
        }
    }

    /// Leaves what stands there as it is, since it wins, and shows why.
    async fn bar(&mut self, index: usize, problem: Problem) {
        let (now, rev) = (self.session.ctx.now(), self.pieces[index].rev);
        let link = self.rows[index].link.park(problem, rev, now);
        self.end(index, link).await;
    }

    /// Writes the row of a document with which nothing more is to be done.
    async fn end(&mut self, index: usize, link: Link) {
        self.results[index] = match self.store(index, link).await {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error.into())),
        };
    }

    /// Ends what is still open among `indexes` for the same reason.
    fn stop(&mut self, indexes: &[usize], stop: &Stop) {
        for index in indexes {
            self.results[*index].get_or_insert_with(|| Err(stop.alike()));
        }
    }

    /// Writes a row; `false` when somebody else was faster, whose row is then read.
    async fn store(&mut self, index: usize, link: Link) -> Result<bool> {
        let ctx = self.session.ctx;
        match self.rows[index].store(ctx, link).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Code::Busy => {
                self.rows[index].reload(ctx).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the documents of the next call off `wanted`, which are of one form.
    async fn chunk(&self, form: Form, wanted: &mut Vec<Wanted>) -> Vec<Wanted> {
        let most = self.session.provider.write_max(form);
        let most = self.session.together(wanted.len(), most).await;
        let (mut count, mut bytes) = (0, 0);
        for (index, _) in wanted.iter() {
            // What was refused once takes nothing else along.
            let refused = self.rows[*index].link.refusals > 0;
            bytes += self.pieces[*index].body.to_string().len();
            if count == most || count > 0 && (refused || bytes > CALL_BYTES_MAX) {
                break;
            }
            count += 1;
            if refused {
                break;
            }
        }
        wanted.drain(..count).collect()
    }

    /// Makes one call: intents, seal, call.
    async fn write(&mut self, form: Form, chunk: Vec<Wanted>) -> Result<(), Stop> {
        self.session.ready()?;
        let (ctx, provider) = (self.session.ctx, self.session.provider);
        let id = ctx.uuid().simple().to_string();
        let update = chunk.iter().any(|(_, remote)| remote.is_some());
        let policy = &self.session.connection.settings.conflicts;
        let mut documents = Vec::new();
        let mut items = Vec::new();
        let mut within = Vec::new();
        for (index, remote) in chunk {
            let piece = &self.pieces[index];
            let (content, rev) = (&piece.content, piece.rev);
            let link = &self.rows[index].link;
            let intended = link.intend(&id, form, content, rev, ctx.now());
            let mut body = piece.body.clone();
            if link.made_anew > 0 {
                provider.renumber(form, link.made_anew, &mut body);
            }
            let (body, item) = (
                link.with_kept_words(body, policy),
                CallItem {
                    id: piece.name.row.id.clone(),
                    order_id: piece.name.order_id.clone(),
                    total: piece.document.total(),
                },
            );
            match self.store(index, intended).await {
                Ok(true) => {
                    documents.push((body, remote));
                    items.push(item);
                    within.push(index);
                }
                Ok(false) => {}
                Err(error) => self.results[index] = Some(Err(error.into())),
            }
        }
        if within.is_empty() {
            return Ok(());
        }
        let call = Call {
            form,
            update,
            body: pack(&provider.write_body(form, &documents))?,
            items,
            sealed_at: ctx.now(),
        };
        if call.body.len() > SEALED_BYTES_MAX {
            return self.too_large(&within).await;
        }
        if !self.seal(&id, &Sealed::Sealed(call.clone())).await? {
            // Somebody found an intent and did not wait; the rows are decided anew.
            for index in within {
                self.rows[index].reload(ctx).await?;
            }
            return Ok(());
        }
        self.make(&id, &call, &within).await
    }

    /// Lets each of several go alone, and parks one that is too large alone.
    async fn too_large(&mut self, within: &[usize]) -> Result<(), Stop> {
        let now = self.session.ctx.now();
        for index in within {
            let mut link = self.rows[*index].link.refuse(now);
            if within.len() == 1 {
                let problem = Problem {
                    code: "too_large".to_owned(),
                    detail: "this has more text than one document can hold; post it by hand"
                        .to_owned(),
                };
                link = link.park(problem, self.pieces[*index].rev, now);
            }
            let parked = self.store(*index, link).await? && within.len() == 1;
            if parked {
                self.results[*index] = Some(Ok(()));
            }
        }
        Ok(())
    }

    /// Puts `sealed` under the name of a call; `false` when something stands there.
    async fn seal(&self, id: &str, sealed: &Sealed) -> Result<bool> {
        let (ctx, connection) = (self.session.ctx, self.session.connection);
        let key = keys::call(&connection.merchant_id, &connection.id, id);
        let gone = (ctx.now() + CALL_LIFE).timestamp();
        let write = Write::put(key, Condition::Absent, sealed)?.expiring(gone);
        match ctx.store.write(write).await {
            Ok(()) => Ok(true),
            Err(WriteError::Condition(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds out what became of a call that some of `indexes` name in their intents.
    async fn conclude(&mut self, id: &str, indexes: &[usize]) -> Result<(), Stop> {
        let (ctx, connection) = (self.session.ctx, self.session.connection);
        let key = keys::call(&connection.merchant_id, &connection.id, id);
        let found = ctx.store.get(&key).await?;
        let window = self.session.provider.replay_window();
        match found.map(|item| item.read::<Sealed>()).transpose()? {
            // Who is about to seal it must not, and whoever was faster has sealed it.
            None if !self.seal(id, &Sealed::GivenUp).await? => Ok(()),
            None | Some(Sealed::GivenUp) => self.forget(indexes).await,
            Some(Sealed::Sealed(call)) => {
                // Whoever was not sure that his intent was stored has left it out.
                let carried = |index: &usize| {
                    let id = &self.pieces[*index].name.row.id;
                    call.items.iter().any(|item| item.id == *id)
                };
                let (carried, left): (Vec<usize>, Vec<usize>) =
                    indexes.iter().copied().partition(carried);
                self.forget(&left).await?;
                match call.recall(window, ctx.now()) {
                    _ if carried.is_empty() => {}
                    Recall::Again => return self.make(id, &call, &carried).await,
                    Recall::Wait => {
                        let detail = "what became of the last try is not known yet".to_owned();
                        self.stop(&carried, &Stop::Theirs(Fault::Later { detail }));
                    }
                    Recall::Past => {
                        for index in carried {
                            if let Err(stop) = self.look_up(index, &call).await {
                                self.results[index] = Some(Err(stop));
                            }
                        }
                    }
                }
                Ok(())
            }
        }
    }

    /// Clears intents of which nobody made the call.
    async fn forget(&mut self, indexes: &[usize]) -> Result<(), Stop> {
        for index in indexes {
            let forgotten = self.rows[*index].link.forget(self.session.ctx.now());
            self.store(*index, forgotten).await?;
        }
        Ok(())
    }

    /// Decides what became of a call whose answer the provider no longer remembers: what it would have
    /// made is found by its name, or is not there. What it would have changed is written again, and so is
    /// what was found and may change where another call was refused before: that one may have made it.
    async fn look_up(&mut self, index: usize, call: &Call) -> Result<(), Stop> {
        let found = match call.update {
            true => None,
            false => self.find(index).await?,
        };
        let (link, now) = (&self.rows[index].link, self.session.ctx.now());
        let link = match found {
            Some(remote) if link.refusals > 0 && call.form.may_change() => link.reread(remote, now),
            Some(remote) => link.settle(remote, now),
            None => link.forget(now),
        };
        self.store(index, link).await?;
        Ok(())
    }

    async fn find(&self, index: usize) -> Result<Option<Remote>, Stop> {
        let (session, document) = (self.session, self.pieces[index].document);
        let Some(request) = session.provider.find_document(&session.tenant, document) else {
            return Ok(None);
        };
        let read = |answer: &_| session.provider.read_found_document(document, answer);
        Ok(session.call(request, read).await?.0)
    }

    /// Sends a sealed call, for the first time or again, and settles every row of it.
    async fn make(&mut self, id: &str, call: &Call, indexes: &[usize]) -> Result<(), Stop> {
        let (session, count) = (self.session, call.items.len());
        let (provider, body) = (session.provider, unpack(&call.body)?);
        let request = provider.write(&session.tenant, id, call.form, call.update, count, body);
        let read = |answer: &_| provider.read_written(call.form, count, answer);
        let outcomes = match session.call(request, read).await {
            Ok((outcomes, _)) => outcomes,
            Err(Stop::Theirs(
                fault @ (Fault::Refused { .. } | Fault::NameTaken | Fault::Stale),
            )) if count == 1 => vec![Err(fault)],
            // Of several, one may be what is wrong with all: each goes alone.
            Err(Stop::Theirs(Fault::Refused { .. } | Fault::NameTaken | Fault::Stale)) => {
                let apart = || Fault::Later {
                    detail: "it was refused together with others, and is sent alone".to_owned(),
                };
                (0..count).map(|_| Err(apart())).collect()
            }
            Err(stop) => return Err(stop),
        };
        let mut written = BTreeSet::new();
        for (item, outcome) in call.items.iter().zip(outcomes) {
            if outcome.is_ok() {
                written.extend(item.order_id.clone());
            }
            let here = |index: &&usize| self.pieces[**index].name.row.id == item.id;
            match indexes.iter().find(here).copied() {
                Some(index) => {
                    if let Err(stop) = self.settle(index, id, item.total, outcome).await {
                        self.results[index] = Some(Err(stop));
                    }
                }
                None => self.settle_elsewhere(id, call, item, outcome).await?,
            }
        }
        self.try_beside(&written);
        Ok(())
    }

    /// Lets what was refused be tried once more when something else of its order was written: payments
    /// of one order share what is open of its invoice, and where one takes less there is room for another.
    /// Each success allows one more try, so this ends.
    fn try_beside(&mut self, written: &BTreeSet<RecordId>) {
        let pieces = self.pieces;
        let of_these = |index: &usize| {
            let order = pieces[*index].name.order_id.as_ref();
            order.is_some_and(|order| written.contains(order))
        };
        let (again, still) = self.refused.iter().copied().partition(of_these);
        self.refused = still;
        let again: BTreeSet<usize> = again;
        for index in again {
            self.results[index] = None;
        }
    }

    /// Writes down what became of one document of a call.
    async fn settle(
        &mut self,
        index: usize,
        call: &str,
        total: Money,
        outcome: Result<Written, Fault>,
    ) -> Result<(), Stop> {
        // Somebody else may have settled it, and gone on.
        if !names(&self.rows[index].link, call) {
            return Ok(());
        }
        let ctx = self.session.ctx;
        let (rev, form) = (self.pieces[index].rev, self.pieces[index].document.form());
        let refused = self.rows[index].link.refuse(ctx.now());
        let (link, done) = match outcome {
            Ok(written) => {
                let link = settled(self.session, &self.rows[index].link, written, total, form);
                // With another total it is parked, and what it should be is for people to see.
                let done = link.content.is_none();
                (link, done.then_some(Ok(())))
            }
            Err(Fault::NameTaken) => match self.find(index).await? {
                Some(remote) => (self.adopted(index, remote), None),
                None => {
                    let problem = number_taken(self.session, form);
                    (refused.park(problem, rev, ctx.now()), Some(Ok(())))
                }
            },
            Err(Fault::Stale) => {
                let Some(remote) = self.rows[index].link.remote.clone() else {
                    return Err(Stop::Theirs(Fault::Stale));
                };
                let session = self.session;
                let request = session.provider.read(&session.tenant, form, &remote);
                let read = |answer: &_| session.provider.read_back(form, answer);
                let (seen, _) = session.call(request, read).await?;
                return self.meet(index, &seen).await;
            }
            Err(Fault::Refused { code, detail }) => {
                // What was not to be made may stand there, in whatever words the provider says so.
                let found = match self.rows[index].link.remote {
                    None => self.find(index).await?,
                    Some(_) => None,
                };
                match found {
                    Some(remote) => (self.adopted(index, remote), None),
                    None => {
                        self.refused.insert(index);
                        let refused = self.unless_missing(refused, &code);
                        let problem = Problem { code, detail };
                        (refused.park(problem, rev, ctx.now()), Some(Ok(())))
                    }
                }
            }
            // The answer says that it had no effect, and would say so for ever under the same key.
            Err(fault @ (Fault::Later { .. } | Fault::Unauthorized)) => {
                let again = self.rows[index].link.refusals > 0;
                (refused, again.then_some(Err(Stop::Theirs(fault))))
            }
        };
        if self.store(index, link).await?
            && let Some(result) = done
        {
            self.results[index] = Some(result);
        }
        Ok(())
    }

    /// Somebody changed there what we set out to write: our call had no effect, and what was seen is
    /// decided as every change is. What the shop is to write is then written in the next round.
    async fn meet(&mut self, index: usize, seen: &Seen) -> Result<(), Stop> {
        let session = self.session;
        let meeting = Meeting {
            ctx: session.ctx,
            provider: session.provider,
            connection: session.connection,
            skew: pull::skew(session.ctx, session.connection).await?,
        };
        let now = session.ctx.now();
        let name = self.pieces[index].name.clone();
        let link = self.rows[index].link.forget(now);
        let (link, writes) = match meeting.judge(&link, 0, &name, seen).await? {
            Verdict::Changed(mut change) => {
                let kind = name.row.kind.as_str();
                let writes = meeting.tell(kind, &name, seen, &mut change)?;
                let accepted = change.outcome == Outcome::ProviderWins
                    && change.fields.contains(&Fields::Amounts)
                    && !change.link.amounts_kept;
                let content = accepted.then(|| self.pieces[index].content.clone());
                let link = change.link;
                (
                    Link {
                        content: content.or(link.content.clone()),
                        ..link
                    },
                    writes,
                )
            }
            Verdict::Noted(noted) => (*noted, Vec::new()),
            // The refusal itself says that another version stands there.
            Verdict::Known | Verdict::Stranger | Verdict::Open => match &seen.standing {
                Standing::Stands { remote, .. } => (link.reread(remote.clone(), now), Vec::new()),
                Standing::Gone(_) => (link, Vec::new()),
            },
        };
        let ctx = session.ctx;
        match self.rows[index].store_with(ctx, link, writes).await {
            Err(error) if error.code() == Code::Busy => Ok(self.rows[index].reload(ctx).await?),
            outcome => Ok(outcome?),
        }
    }

    /// What stood there before a refusal stands there still, unless the refusal says that it does not.
    fn unless_missing(&self, refused: Link, code: &str) -> Link {
        match code == self.session.provider.missing() {
            true => refused.doubt(),
            false => refused,
        }
    }

    /// The link of a document that stands there already, made by a call that is long forgotten. It is
    /// written again, unless it cannot be changed.
    fn adopted(&self, index: usize, remote: Remote) -> Link {
        let (link, now) = (&self.rows[index].link, self.session.ctx.now());
        let form = self.pieces[index].document.form();
        match self.session.provider.is_fixed(form) {
            true => link.settle(remote, now),
            false => link.refuse(now).reread(remote, now),
        }
    }

    /// The same for a row that nobody here asked about. Whoever did comes again, so a lost race is left
    /// to him.
    async fn settle_elsewhere(
        &self,
        id: &str,
        call: &Call,
        item: &CallItem,
        outcome: Result<Written, Fault>,
    ) -> Result<()> {
        let ctx = self.session.ctx;
        let name = RowName {
            row: RowRef {
                kind: call.form.kind(),
                id: item.id.clone(),
            },
            order_id: item.order_id.clone(),
        };
        let mut row = Row::load(ctx, self.session.connection, &name).await?;
        if !names(&row.link, id) {
            return Ok(());
        }
        let link = match outcome {
            Ok(written) => settled(self.session, &row.link, written, item.total, call.form),
            Err(Fault::Refused { code, detail }) => {
                let rev = row.link.record_rev;
                let refused = self.unless_missing(row.link.refuse(ctx.now()), &code);
                refused.park(Problem { code, detail }, rev, ctx.now())
            }
            // He has to look closer.
            Err(Fault::Stale | Fault::NameTaken) => return Ok(()),
            Err(_) => row.link.refuse(ctx.now()),
        };
        // Who waits for a live connection waits with all of the record, and this is one document of it.
        let link = Link {
            waiting: row.link.waiting.clone(),
            ..link
        };
        match row.store(ctx, link).await {
            Err(error) if error.code() == Code::Busy => Ok(()),
            outcome => outcome,
        }
    }
}

/// Whether the open intent of `link` is one of `call`.
fn names(link: &Link, call: &str) -> bool {
    link.intent
        .as_ref()
        .is_some_and(|intent| intent.call == call)
}

/// The link of a document that the provider took.
fn settled(
    session: &Session<'_>,
    link: &Link,
    written: Written,
    expected: Money,
    form: Form,
) -> Link {
    let now = session.ctx.now();
    if written.total == Some(expected.major()) {
        return link.settle(written.remote, now);
    }
    let (title, what) = (session.provider.manifest().title, form.title());
    let total = written
        .total
        .map_or_else(|| "no total".to_owned(), |total| total.to_string());
    let problem = Problem {
        code: "total_differs".to_owned(),
        detail: format!(
            "{title} made {total} of a {what} of {expected}; compare the two and correct it there"
        ),
    };
    link.differ(written.remote, problem, now)
}

/// Why a document that stands there stays as it is, though the shop says something else by now.
fn stuck(session: &Session<'_>, form: Form, nothing: bool) -> Problem {
    let (title, what) = (session.provider.manifest().title, form.title());
    let (now, then) = match nothing {
        true => (
            "there is nothing left to post of it",
            "and accept it as gone",
        ),
        false => (
            "it cannot be changed there",
            "reconcile its day and repair what is missing",
        ),
    };
    Problem {
        code: "fixed_there".to_owned(),
        detail: format!(
            "this changed in the shop after the {what} was made in {title}, and {now}: delete the \
             {what} there, {then}"
        ),
    }
}

fn number_taken(session: &Session<'_>, form: Form) -> Problem {
    let (title, what) = (session.provider.manifest().title, form.title());
    Problem {
        code: "number_taken".to_owned(),
        detail: format!(
            "the number of this {what} belongs to another document in {title}; give that one another \
             number there, then retry"
        ),
    }
}
