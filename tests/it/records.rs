//! What a merchant sees of its records at a connection, and sending them again, over the real stack.

use crate::manage::{Api, Values};
use crate::world::{Shop, World, event, order, payment, wait};
use serde_json::{Value, json};
use std::sync::Arc;

const EVENTS: &str = "/api/v1/events";
/// What QuickBooks calls a second document with one number.
const TAKEN: &str = "quickbooks_6140";

pub async fn test(world: Arc<World>) {
    let api = Api::read(&world).await;
    let (shop, values) = api.connected().await;
    let at = At { api, shop, values };
    at.parked_and_retried().await;
    eprintln!("  what is parked is shown, and is there once it may be and is sent again");
    at.failing().await;
    eprintln!("  what fails is shown, and is there by itself");
    at.waiting().await;
    eprintln!("  what waits is counted");
    at.resynced().await;
    eprintln!("  a resync writes what differs, and nothing else");
    at.given_up().await;
}

struct At<'a> {
    api: Api<'a>,
    shop: Shop,
    values: Values,
}

impl At<'_> {
    /// Sends a sale under a number of its own or of another; returns the order's id.
    async fn sell(&self, name: &str, number: &str) -> String {
        let id = format!("{}-{name}", self.shop.merchant);
        let mut created = order(&id, 1, 500, "USD");
        created["number"] = json!(number);
        let paid = payment(&format!("{id}-p"), &id, 500, "USD");
        for (part, kind, data) in [
            ("created", "order.created", created),
            ("paid", "payment.processed", paid),
        ] {
            let event = event(&self.shop, &format!("{id}-{part}"), kind, data);
            self.api.world.post(EVENTS, &event).await.expect(202);
        }
        id
    }

    async fn get(&self, operation: &str, query: &str) -> Value {
        let operation = self.api.operation(operation);
        let address = self.api.address(operation, &self.values);
        let address = format!("{address}{query}");
        let reply = self.api.send(operation, &address, None).await;
        reply.expect(200).json()
    }

    async fn record(&self, order: &str) -> Value {
        let operation = self.api.operation("getRecord");
        let address = self.api.address(operation, &self.values);
        let address = address.replace("/1001?", &format!("/{order}?"));
        let reply = self.api.send(operation, &address, None).await;
        match reply.status {
            404 => Value::Null,
            _ => reply.expect(200).json(),
        }
    }

    /// Waits until `holds` of a record as it is shown.
    async fn until(&self, what: &str, order: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait(what, async || {
            let record = self.record(order).await;
            match holds(&record) {
                true => (Vec::new(), 0),
                false => (vec![record.to_string()], 0),
            }
        })
        .await;
        self.record(order).await
    }

    async fn retry(&self, body: Value) -> Value {
        let mut body = body;
        body["merchant_id"] = json!(self.values.merchant);
        let reply = self.api.call_with("retry", &self.values, &body).await;
        reply.expect(202).json()
    }

    /// Waits until nothing is on its way to QuickBooks.
    async fn quiet(&self) {
        wait("the queue is empty", async || {
            let outbox = self.api.world.outbox().await;
            let queued = self.api.world.queued("QueueSyncQuickbooks").await;
            match outbox + queued {
                0 => (Vec::new(), 0),
                left => (vec![format!("{left} messages")], 0),
            }
        })
        .await;
    }

    async fn forbid(&self, forbids: bool) {
        let company = json!({
            "realm": self.shop.account.id, "name": self.shop.account.name,
            "forbid_duplicate_doc_numbers": forbids,
        });
        self.api.world.quickbooks("realms", Some(company)).await;
    }

    async fn receipts(&self, order: &str) -> usize {
        let realm = &self.shop.account.id;
        self.api.receipts(&self.shop, realm, order).await
    }

    async fn parked_and_retried(&self) {
        self.forbid(true).await;
        let first = self.sell("first", "N-1").await;
        let there = self.until("the first is there", &first, |one| one["state"] == "synced");
        let there = there.await;
        assert_eq!(
            there["documents"].as_array().map(Vec::len),
            Some(1),
            "{there}"
        );
        assert_eq!(there["documents"][0]["number"], "N-1");
        assert_eq!(there["shop"]["version"], 1);
        assert_eq!(
            there["shop"]["revision"], there["revision"],
            "all of it is there"
        );
        assert_eq!(
            (&there["error"], &there["attempts"]),
            (&Value::Null, &json!(0))
        );
        let empty = self.get("listErrors", "").await;
        assert_eq!(empty["data"], json!([]));

        let second = self.sell("second", "N-1").await;
        let parked = |more: u64| {
            move |one: &Value| one["state"] == "parked" && one["attempts"].as_u64() >= Some(more)
        };
        self.until("the second is parked", &second, parked(1)).await;
        // Each of its two events is a reason to try, so it may be refused twice.
        self.quiet().await;
        let shown = self.record(&second).await;
        let attempts = shown["attempts"].as_u64().expect("a number");
        assert_eq!(shown["error"]["code"], TAKEN);
        let detail = shown["error"]["detail"].as_str().expect("words");
        assert!(
            detail.contains("another document with this number"),
            "{detail}"
        );
        assert_eq!(shown["documents"], json!([]));
        let errors = self.get("listErrors", "").await;
        assert_eq!(errors["data"].as_array().map(Vec::len), Some(1), "{errors}");
        let error = &errors["data"][0];
        assert_eq!(
            (&error["id"], &error["code"]),
            (&json!(second), &json!(TAKEN))
        );
        assert_eq!(
            self.get("listErrors", "&code=other").await["data"],
            json!([])
        );

        let mut ids = Vec::new();
        let mut cursor = String::new();
        for _ in 0..3 {
            let page = self.get("listRecords", &format!("&limit=1{cursor}")).await;
            let data = page["data"].as_array().expect("a list");
            ids.extend(
                data.iter()
                    .map(|one| one["id"].as_str().expect("an id").to_owned()),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(ids, [first.clone(), second.clone()]);
        let only = self.get("listRecords", "&state=parked&type=order").await;
        assert_eq!(only["data"][0]["id"], second);
        assert_eq!(only["data"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            self.get("listRecords", "&type=refund").await["data"],
            json!([])
        );
        let summary = self.get("getSummary", "").await;
        assert_eq!(summary["accuracy"], "0.500000", "{summary}");
        assert_eq!(
            (&summary["counts"]["synced"], &summary["counts"]["parked"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(summary["open"]["errors"], 1);
        let total = self.get("getMerchantSummary", "").await;
        assert_eq!(total["accuracy"], "0.500000", "{total}");
        assert_eq!(
            total["connections"][0]["connection_id"],
            self.values.connection
        );

        // Nothing has changed over there, so it is refused once more.
        assert_eq!(self.retry(json!({ "code": "other" })).await["sent"], 0);
        assert_eq!(self.retry(json!({ "code": TAKEN })).await["sent"], 1);
        self.until("it is refused again", &second, parked(attempts + 1))
            .await;
        self.forbid(false).await;
        // As the list of errors says.
        let path = error["retry"]["path"].as_str().expect("a path");
        let answer = self.api.world.post(path, &error["retry"]["body"]).await;
        assert_eq!(answer.expect(202).json()["sent"], 1);
        let synced = |one: &Value| one["state"] == "synced";
        self.until("it is there", &second, synced).await;
        let both = json!([{ "type": "order", "id": first }, { "type": "order", "id": second }]);
        assert_eq!(self.retry(json!({ "records": both })).await["sent"], 2);
        self.quiet().await;
        assert_eq!(
            (self.receipts(&first).await, self.receipts(&second).await),
            (1, 1)
        );
        assert_eq!(self.get("listErrors", "").await["data"], json!([]));

        let unknown = json!({
            "merchant_id": self.values.merchant,
            "records": [{ "type": "order", "id": first }, { "type": "order", "id": "nobody" }],
        });
        let reply = self
            .api
            .call_with("retry", &self.values, &unknown)
            .await
            .expect(422);
        let problem = reply.json();
        assert_eq!(problem["errors"][0]["pointer"], "#/records/1");
        assert_eq!(problem["errors"][0]["code"], "unknown_record");
    }

    async fn failing(&self) {
        self.api.fail("salesreceipt", 1000).await;
        let order = self.sell("failing", "N-4").await;
        let failing = |one: &Value| one["state"] == "pending" && !one["error"].is_null();
        let shown = self.until("it fails", &order, failing).await;
        assert_eq!(shown["error"]["code"], "upstream_failed", "{shown}");
        assert!(!shown["next_attempt_at"].is_null(), "{shown}");
        let errors = self.get("listErrors", "").await;
        assert_eq!(errors["data"][0]["id"], order, "{errors}");
        assert_eq!(
            errors["data"][0]["todo"],
            "Nothing; it is tried again by itself."
        );
        self.api.mend().await;
        self.until("it is there", &order, |one| one["state"] == "synced")
            .await;
        assert_eq!(self.get("listErrors", "").await["data"], json!([]));
    }

    async fn waiting(&self) {
        self.api.call("pause", &self.values).await.expect(200);
        let order = self.sell("waiting", "N-5").await;
        self.until("it waits", &order, |one| one["state"] == "waiting")
            .await;
        let list = self.get("listRecords", "&state=waiting").await;
        assert_eq!(list["data"][0]["id"], order, "{list}");
        assert_eq!(self.get("getSummary", "").await["open"]["waiting"], 1);
        self.api.call("resume", &self.values).await.expect(200);
        self.until("it is there", &order, |one| one["state"] == "synced")
            .await;
        let list = self.get("listRecords", "&state=waiting").await;
        assert_eq!(list["data"], json!([]));
    }

    async fn resynced(&self) {
        let all = self.get("listRecords", "").await;
        let before = all["data"].as_array().expect("a list").clone();
        let changed = before[0]["id"].as_str().expect("an id");
        // The ledger is told that something else stands there.
        let mut row = self.api.ledger(&self.values, changed).await.expect("a row");
        row["content"] = json!("something else");
        let pk = format!("{}/{}", self.values.merchant, self.values.connection);
        let update = json!({
            "TableName": self.api.world.stack.output("TableLedger").expect("an output"),
            "Key": { "pk": { "S": pk }, "sk": { "S": format!("order/{changed}") } },
            "UpdateExpression": "SET doc = :doc",
            "ExpressionAttributeValues": { ":doc": { "S": row.to_string() } },
        });
        let target = "DynamoDB_20120810.UpdateItem";
        self.api.world.aws("dynamodb", target, update).await;
        let body = json!({ "merchant_id": self.values.merchant });
        let begun = self
            .api
            .call_with("resync", &self.values, &body)
            .await
            .expect(202);
        let begun = begun.json();
        wait("the resync is done", async || {
            let last = self.get("getResync", "").await;
            assert_eq!(last["id"], begun["id"]);
            match last["state"] == "done" {
                true => (Vec::new(), 0),
                false => (vec![last.to_string()], 0),
            }
        })
        .await;
        let last = self.get("getResync", "").await;
        assert_eq!(last["looked"], before.len());
        assert_eq!(last["sent"], before.len());
        let version = before[0]["documents"][0]["version"].clone();
        let rewritten =
            |one: &Value| one["documents"][0]["version"] != version && one["state"] == "synced";
        self.until("it is written again", changed, rewritten).await;
        let after = self.get("listRecords", "").await;
        for (before, after) in before.iter().zip(after["data"].as_array().expect("a list")) {
            if before["id"] != changed {
                assert_eq!(before["documents"], after["documents"]);
            }
            let id = before["id"].as_str().expect("an id");
            assert_eq!(self.receipts(id).await, 1, "{id}");
        }
    }

    async fn given_up(&self) {
        self.api.call("disconnect", &self.values).await.expect(200);
        for operation in ["retry", "resync"] {
            let reply = self.api.call(operation, &self.values).await.expect(409);
            assert_eq!(reply.json()["code"], "conflict", "{operation}");
        }
        // What stood there is still known.
        let list = self.get("listRecords", "&state=synced").await;
        assert!(!list["data"].as_array().expect("a list").is_empty());
    }
}
