//! Every key of every table is built here, and none without a merchant, so that no query can reach
//! across tenants. The exceptions are listed with their reason.
//!
//! Ids hold no `/` (see `model::ids`), so no id can forge another key.

use super::{Group, Key, Table};
use crate::model::event::RecordKind;
use crate::model::ids::{ConnectionId, EndpointId, EventId, MerchantId, RecordId};

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

/// Everything that stands at the provider of one connection.
pub fn ledger(merchant: &MerchantId, connection: &ConnectionId) -> Group {
    Group {
        table: Table::Ledger,
        pk: format!("{merchant}/{connection}"),
    }
}

/// The ledger row of one thing: `kind` is `order`, `refund`, `customer`, `item` or `settings`.
pub fn link(merchant: &MerchantId, connection: &ConnectionId, kind: &str, id: &str) -> Key {
    member(ledger(merchant, connection), format!("{kind}/{id}"))
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

pub fn delivery(merchant: &MerchantId, endpoint: &EndpointId, event: &EventId) -> Key {
    member(deliveries(merchant, endpoint), event.to_string())
}

/// Where a list of deliveries goes on after `event`.
pub fn after_delivery(merchant: &MerchantId, endpoint: &EndpointId, event: &EventId) -> String {
    super::cursor(&deliveries(merchant, endpoint).pk, event.as_str())
}
