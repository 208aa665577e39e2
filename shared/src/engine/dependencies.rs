//! Customers and items that documents refer to: known from the ledger, else found at the provider by
//! name, else made there. Names are unique at the provider, so a creation whose answer was lost is
//! found again by its name, and no intent needs to be recorded for it.

use super::session::{Session, Stop};
use super::two_ways::Theirs;
use crate::error::Result;
use crate::providers::Fault;
use crate::providers::accounting::{Dependency, DependencyKind, Found, References};
use crate::store::{Condition, Key, Write, keys};
use crate::sync::push::{Link, LinkState, Remote};
use std::collections::BTreeMap;

/// Rounds of look-up and creation: one for each name to try, and one more for a lost race.
const ROUNDS_MAX: usize = 4;

/// Calls of one look-up that may be refused before all that is left of it is given up: what is refused for
/// the sake of the company is refused of each.
const REFUSED_MAX: usize = 20;

/// What could not be resolved, and why.
pub type Failures = BTreeMap<(DependencyKind, String), Fault>;

/// Resolves `wanted` (each kind and key once).
pub async fn resolve(
    session: &Session<'_>,
    wanted: Vec<Dependency>,
) -> Result<(References, Failures), Stop> {
    let store = &session.ctx.store;
    let keys: Vec<Key> = wanted
        .iter()
        .map(|dependency| ledger_key(session, dependency))
        .collect();
    let mut references = References::new();
    let mut failures = Failures::new();
    let mut missing = Vec::new();
    for (dependency, item) in wanted.into_iter().zip(store.get_many(&keys).await?) {
        let link: Option<Link> = item.map(|item| item.read()).transpose()?;
        // What was deleted there, archived or merged into another is looked for and made anew.
        let stands = link.filter(|link| link.gone.is_none());
        match stands.and_then(|link| link.remote) {
            Some(remote) => {
                references.insert((dependency.kind, dependency.key), remote.id);
            }
            // The second value is the position of the name to try.
            None => missing.push((dependency, 0)),
        }
    }
    for _ in 0..ROUNDS_MAX {
        if missing.is_empty() {
            break;
        }
        let mut rest = Vec::new();
        for kind in [DependencyKind::Customer, DependencyKind::Item] {
            let (of_kind, others) = missing.into_iter().partition(|(one, _)| one.kind == kind);
            missing = others;
            let (known, failed) = (&mut references, &mut failures);
            rest.extend(round(session, kind, of_kind, known, failed).await?);
        }
        missing = rest;
    }
    for (dependency, _) in missing {
        failures.insert((dependency.kind, dependency.key), Fault::NameTaken);
    }
    Ok((references, failures))
}

fn ledger_key(session: &Session<'_>, dependency: &Dependency) -> Key {
    let connection = session.connection;
    let kind = dependency.kind.as_str();
    keys::link(
        &connection.merchant_id,
        &connection.id,
        kind,
        &dependency.key,
    )
}

type Missing = Vec<(Dependency, usize)>;

/// Looks up `missing`, which are of one kind, and makes what is not there, in full calls. What was looked
/// up is made before more is looked up: if the calls run out, little of it was in vain.
async fn round(
    session: &Session<'_>,
    kind: DependencyKind,
    mut missing: Missing,
    references: &mut References,
    failures: &mut Failures,
) -> Result<Missing, Stop> {
    let (find_max, create_max) = (session.provider.find_max(), session.provider.create_max());
    let (mut absent, mut rest) = (Missing::new(), Missing::new());
    while !missing.is_empty() {
        let chunk: Missing = missing.drain(..find_max.min(missing.len())).collect();
        absent.extend(look_up(session, kind, chunk, references, failures).await?);
        while absent.len() >= create_max || (missing.is_empty() && !absent.is_empty()) {
            let most = session.together(absent.len(), create_max).await;
            let chunk: Missing = absent.drain(..most.min(absent.len())).collect();
            rest.extend(create(session, chunk, references, failures).await?);
        }
    }
    Ok(rest)
}

/// Looks up `missing`, in one call or, where that is refused as a whole, in halves down to the one that is
/// to blame: the others do not suffer for it.
async fn look_up(
    session: &Session<'_>,
    kind: DependencyKind,
    missing: Missing,
    references: &mut References,
    failures: &mut Failures,
) -> Result<Missing, Stop> {
    let (mut chunks, mut rest, mut refused) = (vec![missing], Missing::new(), 0);
    while let Some(mut chunk) = chunks.pop() {
        let fault = match adopt(session, kind, &chunk, references).await {
            Ok(absent) => {
                rest.extend(absent);
                continue;
            }
            Err(Stop::Theirs(fault @ Fault::Refused { .. })) => fault,
            Err(stop) => return Err(stop),
        };
        refused += 1;
        if chunk.len() > 1 && refused < REFUSED_MAX {
            let half = chunk.split_off(chunk.len() / 2);
            chunks.extend([half, chunk]);
            continue;
        }
        let blamed = chunk.into_iter();
        failures.extend(blamed.map(|(one, _)| ((one.kind, one.key), fault.clone())));
    }
    Ok(rest)
}

/// Looks up `missing` in one call, and adopts what is ours.
async fn adopt(
    session: &Session<'_>,
    kind: DependencyKind,
    missing: &Missing,
    references: &mut References,
) -> Result<Missing, Stop> {
    let provider = session.provider;
    let wanted: Vec<&Dependency> = missing.iter().map(|(dependency, _)| dependency).collect();
    let request = provider.find(&session.tenant, kind, &wanted);
    let (candidates, _): (Vec<Found>, _) = session
        .call(request, |answer| provider.read_found(kind, answer))
        .await?;
    let mut rest = Vec::new();
    let mut adopted = Vec::new();
    for (dependency, position) in missing.iter().cloned() {
        let named = |name: &String| {
            candidates
                .iter()
                .find(|found| provider.same_name(&found.name, name))
        };
        let ours = candidates
            .iter()
            .find(|found| provider.is(&dependency, found));
        match ours {
            Some(found) => adopted.push((dependency, found.remote.clone())),
            None => {
                let free = dependency
                    .names
                    .iter()
                    .position(|name| named(name).is_none());
                let position = free.unwrap_or(dependency.names.len()).max(position);
                rest.push((dependency, position));
            }
        }
    }
    remember(session, adopted, references).await?;
    Ok(rest)
}

/// Creates `missing` in one call. What meets a taken name comes back with the next name.
async fn create(
    session: &Session<'_>,
    missing: Missing,
    references: &mut References,
    failures: &mut Failures,
) -> Result<Missing, Stop> {
    let provider = session.provider;
    let (ready, exhausted): (Missing, Missing) = missing
        .into_iter()
        .partition(|(dependency, position)| *position < dependency.names.len());
    for (dependency, _) in exhausted {
        failures.insert((dependency.kind, dependency.key), Fault::NameTaken);
    }
    if ready.is_empty() {
        return Ok(ready);
    }
    let wanted: Vec<(&Dependency, &str)> = ready
        .iter()
        .map(|(dependency, position)| (dependency, dependency.names[*position].as_str()))
        .collect();
    // A new id each time: a provider repeats refusals too, and a lost answer is found by name.
    let request_id = session.ctx.uuid().simple().to_string();
    let request = provider.create(&session.tenant, &request_id, &wanted);
    let outcome = session
        .call(request, |answer| provider.read_created(&wanted, answer))
        .await;
    let outcomes = match outcome {
        Ok((outcomes, _)) => outcomes,
        // What is said of a call with one is said of that one, and of several they are asked for alone.
        Err(Stop::Theirs(fault @ (Fault::Refused { .. } | Fault::NameTaken))) => {
            if wanted.len() > 1 {
                return apart(session, ready, references, failures).await;
            }
            vec![Err(fault)]
        }
        Err(stop) => return Err(stop),
    };
    let (mut created, mut rest) = (Vec::new(), Vec::new());
    for ((dependency, position), outcome) in ready.iter().cloned().zip(outcomes) {
        match outcome {
            Ok(remote) => created.push((dependency, remote)),
            // Somebody was faster, or the name belongs to something of another kind.
            Err(Fault::NameTaken) => rest.push((dependency, position + 1)),
            Err(fault) => {
                failures.insert((dependency.kind, dependency.key), fault);
            }
        }
    }
    remember(session, created, references).await?;
    Ok(rest)
}

/// Creates each of `missing` in a call of its own, until so many are refused that it lies with the company.
async fn apart(
    session: &Session<'_>,
    missing: Missing,
    references: &mut References,
    failures: &mut Failures,
) -> Result<Missing, Stop> {
    let (mut rest, mut refused) = (Missing::new(), Vec::new());
    for (one, position) in missing {
        let name = (one.kind, one.key.clone());
        if refused.len() >= REFUSED_MAX
            && let Some(fault) = refused.last().cloned()
        {
            failures.insert(name, fault);
            continue;
        }
        let alone = vec![(one, position)];
        rest.extend(Box::pin(create(session, alone, references, failures)).await?);
        refused.extend(failures.get(&name).cloned());
    }
    Ok(rest)
}

/// Writes the ledger rows of what is now known.
async fn remember(
    session: &Session<'_>,
    known: Vec<(Dependency, Remote)>,
    references: &mut References,
) -> Result<(), Stop> {
    let now = session.ctx.now();
    let (mut writes, mut named) = (Vec::new(), Vec::new());
    for (dependency, remote) in known {
        let key = ledger_key(session, &dependency);
        let connection = session.connection;
        let kind = session
            .provider
            .changes()
            .kind_of_dependency(dependency.kind);
        let (merchant, id) = (&connection.merchant_id, &connection.id);
        let theirs = Theirs {
            kind: dependency.kind.as_str().to_owned(),
            id: dependency.key.clone(),
            order_id: None,
        };
        let place = keys::theirs(merchant, id, kind, &remote.id);
        named.push(Write::put(place, Condition::Any, &theirs)?);
        references.insert((dependency.kind, dependency.key), remote.id.clone());
        let link = Link {
            state: LinkState::Synced,
            remote: Some(remote),
            updated_at: Some(now),
            ..Link::default()
        };
        writes.push(Write::put(key, Condition::Any, &link)?);
    }
    // What a row says of the provider's id is known before the row is.
    named.extend(writes);
    session.ctx.store.put_many(named).await?;
    Ok(())
}
