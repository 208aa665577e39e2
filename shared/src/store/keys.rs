//! Every key of every table is built here, and none without a merchant, so that no query can reach
//! across tenants. The exceptions are listed with their reason.
//!
//! Ids hold no `/` (see `model::ids`), so no id can forge another key.

use super::{Group, Key, Table};
use crate::model::event::RecordKind;
use crate::model::ids::{ConnectionId, EndpointId, EventId, MerchantId, RecordId};
use crate::model::notice::DeliveryNotice;
use crate::model::summary::SummaryName;
use chrono::{DateTime, NaiveDate, Utc};

/// The only sort key of a document that stands alone.
const ALONE: &str = "-";

fn alone(table: Table, pk: String) -> Key {
    Key {
        table,
        pk,
        sk: ALONE.to_owned(),
    }
}

fn member(group: Group, sk: String) -> Key {
    Key {
        table: group.table,
        pk: group.pk,
        sk,
    }
}

impl Key {
    pub fn table(&self) -> Table {
        self.table
    }
}

pub fn merchant(merchant: &MerchantId) -> Key {
    alone(Table::Records, format!("{merchant}/merchant"))
}

pub fn event(merchant: &MerchantId, event: &EventId) -> Key {
    alone(Table::Records, format!("{merchant}/event/{event}"))
}

/// A record. A stock record's id holds free text (sku and location), which ends the key.
pub fn record(merchant: &MerchantId, kind: RecordKind, id: &str) -> Key {
    alone(Table::Records, format!("{merchant}/{}/{id}", kind.as_str()))
}

pub fn order(merchant: &MerchantId, order: &RecordId) -> Key {
    record(merchant, RecordKind::Order, order.as_str())
}

pub fn outbox(merchant: &MerchantId, event: &EventId) -> Key {
    alone(Table::Outbox, format!("{merchant}/{event}"))
}

pub fn connections(merchant: &MerchantId) -> Group {
    Group {
        table: Table::Connections,
        pk: format!("{merchant}/connections"),
    }
}

pub fn connection(merchant: &MerchantId, connection: &ConnectionId) -> Key {
    member(connections(merchant), connection.to_string())
}

/// A connect link. The person who opens it has no merchant to name: the link's secret is the proof,
/// and only its hash stands here. The document names the merchant.
pub fn connect_link(secret_hash: &str) -> Key {
    alone(Table::Connections, format!("link/{secret_hash}"))
}

/// A consent under way. The provider sends back `state` alone, so this too is found by the hash of a
/// secret, and the document names the merchant.
pub fn connect_state(secret_hash: &str) -> Key {
    alone(Table::Connections, format!("state/{secret_hash}"))
}

/// A confirmation that a browser has still to follow: it comes with the secret alone, and the document
/// names the merchant.
pub fn connect_proof(secret_hash: &str) -> Key {
    alone(Table::Connections, format!("proof/{secret_hash}"))
}

/// Which connection of a merchant is for one account, so that there is one.
pub fn placed(merchant: &MerchantId, provider: &str, account_hash: &str) -> Key {
    alone(
        Table::Connections,
        format!("{merchant}/account/{provider}/{account_hash}"),
    )
}

/// What an import was given for a refresh token that may work once, and what became of it. Whoever brings
/// the token has to find it, whichever merchant he brings it for, so it is found by the hash of that
/// secret, and the document names the merchant.
pub fn import(provider: &str, token_hash: &str) -> Key {
    alone(
        Table::Connections,
        format!("import/{provider}/{token_hash}"),
    )
}

/// Whose secrets the row of an import holds, as the vault names it.
pub fn import_owner(row: &Key) -> &str {
    &row.pk
}

/// What happened to one connection, oldest first.
pub fn connection_history(merchant: &MerchantId, connection: &ConnectionId) -> Group {
    Group {
        table: Table::Connections,
        pk: format!("{merchant}/history/{connection}"),
    }
}

pub fn connection_entry(merchant: &MerchantId, connection: &ConnectionId, entry: &str) -> Key {
    member(connection_history(merchant, connection), entry.to_owned())
}

/// Where a list of entries goes on after `entry`. As with deliveries, any text is safe.
pub fn after_entry(merchant: &MerchantId, connection: &ConnectionId, entry: &str) -> String {
    super::cursor(
        &connection_history(merchant, connection).pk,
        &entry.replace('\n', ""),
    )
}

/// How calls to one connection's provider went last: apart from the connection, since it is written
/// often and by many.
pub fn connection_health(merchant: &MerchantId, connection: &ConnectionId) -> Key {
    Key {
        table: Table::Connections,
        pk: format!("{merchant}/health"),
        sk: connection.to_string(),
    }
}

/// Which merchant a provider's account belongs to. It is looked up to learn the merchant, so it cannot
/// name one; the account's id is free text, so its hash stands here.
pub fn account(provider: &str, account_hash: &str) -> Key {
    alone(
        Table::Connections,
        format!("account/{provider}/{account_hash}"),
    )
}

/// The connections whose tokens are to be renewed in one minute (Unix time in minutes). The schedule
/// serves all merchants at once; the documents name the merchant.
pub fn due(minute: i64) -> Group {
    Group {
        table: Table::Connections,
        pk: format!("due/{minute}"),
    }
}

pub fn due_connection(minute: i64, merchant: &MerchantId, connection: &ConnectionId) -> Key {
    member(due(minute), format!("{merchant}/{connection}"))
}

/// The minute up to which the schedule has handed out what is due.
pub fn due_cursor() -> Key {
    alone(Table::Connections, "due".to_owned())
}

/// Whether a connection stands at `key`, which only a walk over the whole table has to ask.
pub fn is_connection(key: &Key) -> bool {
    key.table == Table::Connections && key.pk.ends_with("/connections")
}

/// Whether the row of an import stands at `key`.
pub fn is_import(key: &Key) -> bool {
    let parts: Vec<&str> = key.pk.split('/').collect();
    // A merchant may have any name, but nothing of his ends in the hash of a secret after two words.
    let is_hash =
        |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    key.table == Table::Connections && matches!(parts[..], ["import", _, last] if is_hash(last))
}

/// Whether a webhook endpoint stands at `key`.
pub fn is_endpoint(key: &Key) -> bool {
    key.table == Table::Webhooks && key.pk.ends_with("/endpoints")
}

/// Everything that stands at the provider of one connection.
pub fn ledger(merchant: &MerchantId, connection: &ConnectionId) -> Group {
    Group {
        table: Table::Ledger,
        pk: format!("{merchant}/{connection}"),
    }
}

/// The ledger row of one thing: `kind` is that of a document (`order`, `payment`, `refund`,
/// `refund_payment`, `payout`, `payout_fees`), `customer`, `item` or `settings`.
pub fn link(merchant: &MerchantId, connection: &ConnectionId, kind: &str, id: &str) -> Key {
    member(ledger(merchant, connection), format!("{kind}/{id}"))
}

/// One call that writes documents at the provider, apart from the rows that a walk over the ledger sees.
pub fn call(merchant: &MerchantId, connection: &ConnectionId, call: &str) -> Key {
    let calls = Group {
        table: Table::Ledger,
        pk: format!("{merchant}/{connection}/calls"),
    };
    member(calls, call.to_owned())
}

/// An event of a provider that came as a webhook. Whose it is stands in its body, which is read later, so
/// the hash of what names it stands here.
pub fn hook(provider: &str, event_hash: &str) -> Key {
    alone(Table::Ledger, format!("hook/{provider}/{event_hash}"))
}

/// What the provider of one connection says has changed there: things of one kind and id, to be pulled.
pub fn changed(merchant: &MerchantId, connection: &ConnectionId, kind: &str, id: &str) -> Key {
    member(all_changed(merchant, connection), format!("{kind}/{id}"))
}

/// All of what the provider of one connection says has changed there.
pub fn all_changed(merchant: &MerchantId, connection: &ConnectionId) -> Group {
    Group {
        table: Table::Ledger,
        pk: format!("{merchant}/{connection}/changed"),
    }
}

/// Which row of the ledger a thing at the provider belongs to, by the provider's kind and id.
pub fn theirs(merchant: &MerchantId, connection: &ConnectionId, kind: &str, id: &str) -> Key {
    let group = Group {
        table: Table::Ledger,
        pk: format!("{merchant}/{connection}/theirs"),
    };
    member(group, format!("{kind}/{id}"))
}

/// How far one connection's changes are read.
pub fn pull(merchant: &MerchantId, connection: &ConnectionId) -> Key {
    alone(Table::Ledger, format!("{merchant}/pull/{connection}"))
}

/// The connections of which changes are read in one slot of the schedule. The schedule serves all
/// merchants at once; the documents name the merchant.
pub fn pulled(slot: u8) -> Group {
    Group {
        table: Table::Connections,
        pk: format!("pulled/{slot}"),
    }
}

pub fn pulled_connection(slot: u8, merchant: &MerchantId, connection: &ConnectionId) -> Key {
    member(pulled(slot), format!("{merchant}/{connection}"))
}

/// How far the walk has come that gives rows in that schedule to connections of before there was one.
pub fn pulled_walk() -> Key {
    alone(Table::Connections, "pulled".to_owned())
}

/// The budget of calls to one connection's account. It stands apart from the connection's ledger, which
/// is walked.
pub fn budget(merchant: &MerchantId, connection: &ConnectionId) -> Key {
    alone(Table::Ledger, format!("{merchant}/{connection}/budget"))
}

/// The budget of all calls to one provider, whosever they are.
pub fn app_budget(provider: &str) -> Key {
    alone(Table::Ledger, format!("budget/{provider}"))
}

/// The ledger rows of one connection in which something is wrong, so that nobody has to look for them
/// among all.
pub fn troubled(merchant: &MerchantId, connection: &ConnectionId) -> Group {
    Group {
        table: Table::Ledger,
        pk: format!("{merchant}/troubled/{connection}"),
    }
}

/// The ledger rows whose records wait until one connection can be used again.
pub fn waiting(merchant: &MerchantId, connection: &ConnectionId) -> Group {
    Group {
        table: Table::Ledger,
        pk: format!("{merchant}/waiting/{connection}"),
    }
}

/// The place of a ledger row in such a group.
pub fn open(group: Group, kind: &str, id: &str) -> Key {
    member(group, format!("{kind}/{id}"))
}

/// Where a walk over a connection's ledger, or over one of the groups beside it, goes on after the row
/// of `place`, which is `kind/id`. As with deliveries, any text is safe.
pub fn after_row(group: &Group, place: &str) -> String {
    super::cursor(&group.pk, &place.replace('\n', ""))
}

/// `kind/id` of a ledger row, or of a row that points to it.
pub fn place(key: &Key) -> &str {
    &key.sk
}

/// The one count of a connection's ledger, and the one resync of it, which change by themselves.
pub fn count(merchant: &MerchantId, connection: &ConnectionId) -> Key {
    alone(Table::Ledger, format!("{merchant}/count/{connection}"))
}

pub fn resync(merchant: &MerchantId, connection: &ConnectionId) -> Key {
    alone(Table::Ledger, format!("{merchant}/resync/{connection}"))
}

pub fn endpoints(merchant: &MerchantId) -> Group {
    Group {
        table: Table::Webhooks,
        pk: format!("{merchant}/endpoints"),
    }
}

pub fn endpoint(merchant: &MerchantId, endpoint: &EndpointId) -> Key {
    member(endpoints(merchant), endpoint.to_string())
}

pub fn deliveries(merchant: &MerchantId, endpoint: &EndpointId) -> Group {
    Group {
        table: Table::Webhooks,
        pk: format!("{merchant}/deliveries/{endpoint}"),
    }
}

/// The deliveries of one endpoint stand in the order in which their events were accepted.
pub fn delivery(
    merchant: &MerchantId,
    endpoint: &EndpointId,
    accepted_at: DateTime<Utc>,
    event: &EventId,
) -> Key {
    let place = delivery_place(accepted_at, event);
    member(deliveries(merchant, endpoint), place)
}

/// The place before those of all deliveries of what was accepted from then on.
pub fn deliveries_place(accepted_from: DateTime<Utc>) -> String {
    format!("{:015}/", accepted_from.timestamp_millis())
}

/// The place of a delivery among those of its endpoint.
pub fn delivery_place(accepted_at: DateTime<Utc>, event: &EventId) -> String {
    format!("{:015}/{event}", accepted_at.timestamp_millis())
}

/// Where a list of deliveries goes on after that of `event`.
pub fn after_delivery(
    merchant: &MerchantId,
    endpoint: &EndpointId,
    accepted_at: DateTime<Utc>,
    event: &EventId,
) -> String {
    let place = delivery_place(accepted_at, event);
    super::cursor(&deliveries(merchant, endpoint).pk, &place)
}

/// Where a list of deliveries begins whose events were accepted at `from` or later.
pub fn deliveries_from(
    merchant: &MerchantId,
    endpoint: &EndpointId,
    from: DateTime<Utc>,
) -> String {
    let place = format!("{:015}", from.timestamp_millis());
    super::cursor(&deliveries(merchant, endpoint).pk, &place)
}

/// What waits at an endpoint with one key, where it has order.
pub fn line(merchant: &MerchantId, endpoint: &EndpointId, key: &str) -> Key {
    Key {
        table: Table::Webhooks,
        pk: format!("{merchant}/line/{endpoint}"),
        sk: key.to_owned(),
    }
}

/// The deliveries of an endpoint that were made long after their events were accepted, in the order in
/// which they were made.
pub fn late_deliveries(merchant: &MerchantId, endpoint: &EndpointId) -> Group {
    Group {
        table: Table::Webhooks,
        pk: format!("{merchant}/late/{endpoint}"),
    }
}

pub fn late_delivery(since: DateTime<Utc>, notice: &DeliveryNotice) -> Key {
    let place = delivery_place(since, &notice.event_id);
    member(
        late_deliveries(&notice.merchant_id, &notice.endpoint_id),
        place,
    )
}

/// How far whoever reads an endpoint's feed has come.
pub fn feed(merchant: &MerchantId, endpoint: &EndpointId) -> Key {
    Key {
        table: Table::Webhooks,
        pk: format!("{merchant}/feed"),
        sk: endpoint.to_string(),
    }
}

/// Where a list of `group` goes on after the document at `place`; from its beginning if that is empty, as no
/// key is.
pub fn after(group: &Group, place: &str) -> Option<String> {
    (!place.is_empty()).then(|| super::cursor(&group.pk, place))
}

/// How an endpoint answers: apart from it, since it is written often and by many.
pub fn endpoint_health(merchant: &MerchantId, endpoint: &EndpointId) -> Key {
    Key {
        table: Table::Webhooks,
        pk: format!("{merchant}/health"),
        sk: endpoint.to_string(),
    }
}

/// The tokens of an endpoint that is slow or has a limit: apart from how it answers, since each attempt takes
/// one.
pub fn endpoint_bucket(merchant: &MerchantId, endpoint: &EndpointId) -> Key {
    Key {
        table: Table::Webhooks,
        pk: format!("{merchant}/bucket"),
        sk: endpoint.to_string(),
    }
}

/// A walk over the deliveries of an endpoint, which sends them again.
pub fn recovery(merchant: &MerchantId, endpoint: &EndpointId) -> Key {
    Key {
        table: Table::Webhooks,
        pk: format!("{merchant}/recovery"),
        sk: endpoint.to_string(),
    }
}

/// The deliveries whose next attempt is due in one minute (Unix time in minutes). The schedule serves all
/// merchants at once; the documents name the merchant.
pub fn webhook_due(minute: i64) -> Group {
    Group {
        table: Table::Webhooks,
        pk: format!("due/{minute}"),
    }
}

pub fn webhook_due_delivery(minute: i64, notice: &DeliveryNotice) -> Key {
    let DeliveryNotice {
        merchant_id,
        endpoint_id,
        event_id,
        ..
    } = notice;
    let place = format!("{merchant_id}/{endpoint_id}/{event_id}");
    member(webhook_due(minute), place)
}

/// The minute up to which that schedule has handed out what is due.
pub fn webhook_due_cursor() -> Key {
    alone(Table::Webhooks, "due".to_owned())
}

/// What happened in a shop on one day (UTC): a row for each order, payment and refund, which points to
/// its record. It is how records are found that no connection knows of.
pub fn day(merchant: &MerchantId, day: NaiveDate) -> Group {
    Group {
        table: Table::Records,
        pk: format!("{merchant}/day/{day}"),
    }
}

/// The daily summaries of one connection and day (UTC).
pub fn summaries(merchant: &MerchantId, connection: &ConnectionId, day: NaiveDate) -> Group {
    Group {
        table: Table::Records,
        pk: format!("{merchant}/summaries/{connection}/{day}"),
    }
}

/// The record behind a row of a connection's ledger: a record of the shop, or a daily summary.
pub fn posted(merchant: &MerchantId, connection: &ConnectionId, kind: RecordKind, id: &str) -> Key {
    match SummaryName::parse(id) {
        Some(name) => {
            let place = format!("{}/{id}", kind.as_str());
            member(summaries(merchant, connection, name.day), place)
        }
        None => record(merchant, kind, id),
    }
}

/// How many changes of a day's records asked for its summaries to be made.
pub fn summing(merchant: &MerchantId, connection: &ConnectionId, day: NaiveDate) -> Key {
    alone(
        Table::Ledger,
        format!("{merchant}/summing/{connection}/{day}"),
    )
}

/// The one backfill of a connection.
pub fn backfill(merchant: &MerchantId, connection: &ConnectionId) -> Key {
    alone(Table::Ledger, format!("{merchant}/backfill/{connection}"))
}

/// The reconciliations of a connection, by age.
pub fn reconciliations(merchant: &MerchantId, connection: &ConnectionId) -> Group {
    Group {
        table: Table::Ledger,
        pk: format!("{merchant}/reconciliations/{connection}"),
    }
}

pub fn reconciliation(merchant: &MerchantId, connection: &ConnectionId, id: &str) -> Key {
    member(reconciliations(merchant, connection), id.to_owned())
}

/// Which reconciliation of a connection is the last one.
pub fn reconciling(merchant: &MerchantId, connection: &ConnectionId) -> Key {
    alone(
        Table::Ledger,
        format!("{merchant}/reconciling/{connection}"),
    )
}

/// What one reconciliation found.
pub fn findings(merchant: &MerchantId, connection: &ConnectionId, id: &str) -> Group {
    Group {
        table: Table::Ledger,
        pk: format!("{merchant}/findings/{connection}/{id}"),
    }
}

/// The place of one thing that was found: `day/…` for a sum, or `difference/…`. Sums come first.
pub fn finding(group: &Group, place: &str) -> Key {
    member(group.clone(), place.to_owned())
}

/// What a reconciliation saw when it read one document by itself, by its id and version.
pub fn looked(
    merchant: &MerchantId,
    connection: &ConnectionId,
    id: &str,
    remote: &str,
    version: &str,
) -> Key {
    let group = Group {
        table: Table::Ledger,
        pk: format!("{merchant}/looked/{connection}/{id}"),
    };
    member(group, format!("{remote}/{version}"))
}

/// A difference that somebody looked at and lets stand, by what it is about.
pub fn accepted(merchant: &MerchantId, connection: &ConnectionId, difference: &str) -> Key {
    let group = Group {
        table: Table::Ledger,
        pk: format!("{merchant}/accepted/{connection}"),
    };
    member(group, difference.to_owned())
}
