//! The five steps, in order. Each can be told again: what is there already stays as it is.

use super::books::{Accepted, Found, Readers, SUBSCRIBED};
use super::client::{Reply, Server, http};
use super::connections::{Connections, REAUTH};
use super::plan::{Expect, MERCHANT, Plan, Planned, batches, samples};
use super::report::{Sent, show};
use super::{Options, Outcome, retail, say};
use crate::stack::{Config, Urls};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::Rng;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How many orders are sent one event at a time before the rest goes in batches.
const SINGLE_ORDERS: usize = 10;
/// How long the books and the receiver may stand still before what is missing is taken as lost.
const STANDSTILL_MAX: Duration = Duration::from_secs(90);
const POLL_PAUSE: Duration = Duration::from_secs(1);
const SECRET_BYTES: usize = 32;
/// How often a batch is sent while an item of it asks to be sent again, and the pause between.
const BATCH_TRIES_MAX: u32 = 8;
const BATCH_PAUSE: Duration = Duration::from_secs(1);

struct Story {
    http: reqwest::Client,
    api: Server,
    quickbooks: Server,
    receiver: Server,
    urls: Urls,
    started: Instant,
}

/// Tells the story and says whether all of the report holds.
pub async fn tell(options: Options) -> Outcome<bool> {
    let plan = match &options.data {
        Some(path) => retail::read(path, options.limit)?,
        None if options.limit.is_some() => return Err("a limit needs a data file".into()),
        None => samples()?,
    };
    let key = options.platform_key.or_else(key_of_environment);
    let key = key.ok_or("PLATFORM_KEY is not set; `make up` prints it")?;
    let story = Story::new(&key)?;

    story.step(1, "A merchant connects QuickBooks");
    story.register_merchant().await?;
    let realm = story.connect().await?;
    story.step(2, "A developer registers a webhook endpoint");
    story.register_endpoint().await?;
    story.step(3, &format!("The commerce backend sends {}", plan.title));
    let sent = story.send(plan).await?;
    story.step(
        4,
        "Meanwhile the merchant connects everything else; one access is lost and repaired",
    );
    story.connections().connect_all().await?;
    story.connections().repair().await?;
    story.step(
        5,
        "QuickBooks and the developer's endpoint are caught up with",
    );
    let found = story.wait(&sent.accepted, realm).await?;
    let connected = story.connections().read().await?;
    story.step(
        6,
        "The report, read back from QuickBooks and from the endpoint",
    );
    Ok(show(&sent, &found, &connected, story.started.elapsed()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "The demonstration is a client; no function sees this."
)]
fn key_of_environment() -> Option<String> {
    std::env::var("PLATFORM_KEY")
        .ok()
        .filter(|key| !key.is_empty())
}

impl Story {
    fn new(key: &str) -> Outcome<Story> {
        let urls = Config::from_environment()?.urls();
        let http = http()?;
        Ok(Story {
            api: Server::new(&http, &urls.api, Some(key)),
            quickbooks: Server::new(&http, urls.provider("quickbooks"), None),
            receiver: Server::new(&http, &urls.receiver, None),
            urls,
            started: Instant::now(),
            http,
        })
    }

    fn step(&self, number: u8, title: &str) {
        say(&format!(
            "\n{number}. {title}  [{:.1} s]",
            self.started.elapsed().as_secs_f64()
        ));
    }

    async fn register_merchant(&self) -> Outcome<()> {
        let merchant = json!({ "id": MERCHANT, "name": "Demo Shop", "currency": "USD" });
        let reply = self.api.post("/api/v1/merchants", &merchant).await?;
        reply.success("the merchant")?;
        let how = if reply.status == 201 {
            "registered"
        } else {
            "known already"
        };
        say(&format!("  merchant {MERCHANT}: {how}"));
        Ok(())
    }

    fn connections(&self) -> Connections<'_> {
        Connections {
            http: &self.http,
            api: &self.api,
            receiver: &self.receiver,
            urls: &self.urls,
        }
    }

    /// Connects QuickBooks unless it is connected, and returns the company's id there.
    async fn connect(&self) -> Outcome<String> {
        let quickbooks = json!({ "provider": "quickbooks", "category": "accounting" });
        let (connection, fresh) = self.connections().connect(&quickbooks, true).await?;
        let realm = tenant(
            &connection,
            if fresh {
                "connected"
            } else {
                "connected already"
            },
        )?;
        self.add_liabilities(&realm).await?;
        Ok(realm)
    }

    /// The bookkeeper's part: a company has no accounts for what it owes on tips and gift cards until
    /// somebody adds them.
    async fn add_liabilities(&self, realm: &str) -> Outcome<()> {
        let accounts = ["Tips", "Gift cards"]
            .map(|name| json!({ "Name": name, "AccountType": "Other Current Liability" }));
        let company = json!({ "realm": realm, "accounts": accounts });
        let added = self.quickbooks.post("/_control/realms", &company).await?;
        added.success("the accounts for tips and gift cards")?;
        say("  the bookkeeper has accounts for tips and gift cards");
        Ok(())
    }

    /// Registers the developer's endpoint once. The secret is the developer's own, so that the
    /// receiver has it before the first delivery can come.
    async fn register_endpoint(&self) -> Outcome<()> {
        let url = format!("{}/hook", self.urls.receiver);
        let path = format!("/api/v1/webhooks?merchant_id={MERCHANT}");
        let list = self
            .api
            .get(&path)
            .await?
            .success("the list of endpoints")?;
        let all = list["data"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        if let Some(endpoint) = all.iter().find(|endpoint| endpoint["url"] == url.as_str()) {
            let health = self
                .receiver
                .get("/_control/health")
                .await?
                .success("the receiver")?;
            if health["secret"] != true {
                return Err(
                    "the endpoint is registered, but the receiver lost its secret; \
                            start over with an empty state"
                        .into(),
                );
            }
            say(&format!(
                "  {} -> {url}: registered already",
                text(endpoint, "id")?
            ));
            return Ok(());
        }
        let mut bytes = [0_u8; SECRET_BYTES];
        rand::rng().fill(&mut bytes);
        let secret = format!("whsec_{}", STANDARD.encode(bytes));
        let given = self
            .receiver
            .post("/_control/secret", &json!({ "secret": secret }))
            .await?;
        given.success("the receiver")?;
        let events: Vec<&str> = SUBSCRIBED.into_iter().chain([REAUTH]).collect();
        let wish = json!({
            "merchant_id": MERCHANT, "url": url, "event_types": events, "secret": secret,
        });
        let endpoint = self.api.post("/api/v1/webhooks/register", &wish).await?;
        let endpoint = endpoint.success("the endpoint")?;
        let id = text(&endpoint, "id")?;
        say(&format!(
            "  {id} -> {url}: registered for {}",
            events.join(", ")
        ));
        Ok(())
    }

    async fn send(&self, plan: Plan) -> Outcome<Sent> {
        let mut sent = Sent {
            refused: plan.left_out,
            ..Sent::default()
        };
        let (single, rest) = plan.events.split_at(single_events(&plan.events));
        for planned in single {
            let reply = self.api.post("/api/v1/events", &planned.event).await?;
            sent.replayed += usize::from(reply.is_replayed());
            let body = reply.json()?;
            // A refusal of one event is a problem document; in a batch it stands inside an item.
            let is_success = (200..300).contains(&reply.status);
            sent.take(planned, if is_success { Ok(&body) } else { Err(&body) });
        }
        let replayed = match sent.replayed {
            0 => String::new(),
            n => format!(", {n} of them answered as before"),
        };
        say(&format!("  {} events one by one{replayed}", single.len()));
        let batches = batches(rest);
        for (index, batch) in batches.iter().enumerate() {
            let data = self.send_batch(batch).await?;
            let items = data["data"]
                .as_array()
                .filter(|items| items.len() == batch.len());
            let items = items.ok_or("a batch was answered without one item for each event")?;
            for (planned, item) in batch.iter().zip(items) {
                let accepted = item["status"] == "accepted";
                sent.take(
                    planned,
                    if accepted {
                        Ok(item)
                    } else {
                        Err(&item["problem"])
                    },
                );
            }
            let (n, of, seconds) = (
                index + 1,
                batches.len(),
                self.started.elapsed().as_secs_f64(),
            );
            say(&format!(
                "  batch {n} of {of}: {} events  [{seconds:.1} s]",
                batch.len()
            ));
        }
        Ok(sent)
    }

    /// Sends a batch until no item of it asks to be sent again. What was accepted is answered as
    /// before, so the whole batch goes, and the order within it stays.
    async fn send_batch(&self, batch: &[Planned]) -> Outcome<Value> {
        let events: Vec<&Value> = batch.iter().map(|planned| &planned.event).collect();
        let body = json!({ "events": events });
        let mut tries = 1;
        loop {
            let reply: Reply = self.api.post("/api/v1/events", &body).await?;
            let answer = reply.success("a batch of events")?;
            let items = answer["data"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let again = items
                .iter()
                .any(|item| item["problem"]["retryable"] == true);
            if !again || tries == BATCH_TRIES_MAX {
                return Ok(answer);
            }
            tokio::time::sleep(BATCH_PAUSE).await;
            tries += 1;
        }
    }

    /// Waits until the other side shows what it has to, or stands still.
    async fn wait(&self, accepted: &Accepted, realm: String) -> Outcome<Found> {
        let (quickbooks, receiver) = (self.quickbooks.clone(), self.receiver.clone());
        let readers = Readers {
            quickbooks,
            receiver,
            realm,
        };
        let (receipts, refunds) = (accepted.receipts().len(), accepted.refunds().len());
        let webhooks = accepted.webhooks().len();
        let mut last: Option<Found> = None;
        let mut moved = Instant::now();
        loop {
            let found = readers.read(accepted).await?;
            if last.as_ref() != Some(&found) {
                moved = Instant::now();
                say(&format!(
                    "  {}/{receipts} sales receipts, {}/{refunds} refund receipts, \
                     {}/{webhooks} webhooks  [{:.1} s]",
                    found.receipts.found,
                    found.refunds.found,
                    found.deliveries.verified,
                    self.started.elapsed().as_secs_f64()
                ));
            }
            let caught_up = found.receipts.missing.is_empty()
                && found.refunds.missing.is_empty()
                && found.deliveries.missing.is_empty();
            if caught_up {
                return Ok(found);
            }
            if moved.elapsed() > STANDSTILL_MAX {
                say(&format!(
                    "  nothing has moved for {} s",
                    STANDSTILL_MAX.as_secs()
                ));
                return Ok(found);
            }
            last = Some(found);
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }
}

impl Sent {
    /// Books the answer to one event: an acceptance, or a problem document.
    fn take(&mut self, planned: &Planned, answer: Result<&Value, &Value>) {
        let came = match answer {
            Ok(accepted) => {
                let applied = accepted["applied"] != false;
                self.events_accepted += 1;
                self.accepted.take(planned, applied);
                if applied {
                    Expect::Accepted
                } else {
                    Expect::Superseded
                }
            }
            Err(problem) => {
                let reason = reason(problem);
                self.refused
                    .entry(reason)
                    .or_default()
                    .push(planned.id().to_owned());
                Expect::Refused
            }
        };
        if came != planned.expect {
            let id = planned.id();
            self.surprises
                .push(format!("{id} ({}): {came:?}", planned.about));
        }
    }
}

/// Why an event was refused: the code of its first field, which says more, or of the problem.
fn reason(problem: &Value) -> String {
    let codes = [&problem["errors"][0]["code"], &problem["code"]];
    codes
        .iter()
        .find_map(|code| code.as_str())
        .unwrap_or("no code")
        .to_owned()
}

/// How many events there are before the first order after the first few.
fn single_events(events: &[Planned]) -> usize {
    let is_order = |planned: &Planned| planned.event["type"] == "order.created";
    let orders = events
        .iter()
        .enumerate()
        .filter(|(_, planned)| is_order(planned));
    orders
        .map(|(index, _)| index)
        .nth(SINGLE_ORDERS)
        .unwrap_or(events.len())
}

fn tenant(connection: &Value, how: &str) -> Outcome<String> {
    let (id, realm) = (text(connection, "id")?, text(connection, "tenant_id")?);
    let name = connection["tenant_name"]
        .as_str()
        .unwrap_or("without a name");
    say(&format!("  {id} to company {realm} ({name}): {how}"));
    Ok(realm.to_owned())
}

fn text<'a>(value: &'a Value, field: &str) -> Outcome<&'a str> {
    value[field]
        .as_str()
        .ok_or_else(|| format!("the answer has no {field}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_orders_go_one_by_one_with_their_payments() {
        let plan = samples().expect("the samples can be read");
        let (single, rest) = plan.events.split_at(single_events(&plan.events));
        let orders = single
            .iter()
            .filter(|p| p.event["type"] == "order.created")
            .count();
        assert_eq!(orders, SINGLE_ORDERS);
        assert_eq!(rest[0].event["type"], "order.created");
        assert_eq!(single_events(&plan.events[..3]), 3);
    }

    #[test]
    fn the_reason_is_the_most_exact_code() {
        let field = json!({"code": "validation_failed", "errors": [{"code": "total_mismatch"}]});
        assert_eq!(reason(&field), "total_mismatch");
        assert_eq!(reason(&json!({"code": "not_found"})), "not_found");
        assert_eq!(reason(&json!({})), "no code");
    }

    #[test]
    fn an_answer_that_was_not_expected_is_kept() {
        let plan = samples().expect("the samples can be read");
        let mut sent = Sent::default();
        sent.take(&plan.events[0], Ok(&json!({"applied": true})));
        assert!(sent.surprises.is_empty());
        sent.take(&plan.events[1], Err(&json!({"code": "internal"})));
        assert_eq!((sent.surprises.len(), sent.events_accepted), (1, 1));
        assert_eq!(sent.refused["internal"], ["evt-pay-1001-1"]);
    }
}
