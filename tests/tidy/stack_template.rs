//! `infra/template.yaml`, read as data. The local AWS does not enforce permissions, so that a missing
//! one would be noticed only in a real account: here the template is compared with what the code does.

use crate::repository::{code, files, none, read};
use crossdock::api::routes::ROUTES;
use crossdock::providers::PROVIDERS;
use serde_yaml_ng::Value;
use serde_yaml_ng::value::TaggedValue;
use std::collections::{BTreeMap, BTreeSet};

/// What one function uses.
struct Function {
    name: &'static str,
    /// The variables that its code asks `Config` for.
    variables: &'static [&'static str],
    /// What it does to tables, after the calls that its code makes to the store: `get` is GetItem,
    /// `get_many` BatchGetItem, `list` Query, `scan` Scan, a put UpdateItem (alone and in a
    /// transaction), a deletion DeleteItem, a check ConditionCheckItem, `put_many` BatchWriteItem.
    tables: &'static [(&'static str, &'static [&'static str])],
    /// What calls it: a queue, or the stream of a table.
    source: Source,
}

enum Source {
    Api,
    Queue(&'static str),
    Stream {
        table: &'static str,
        dead: &'static str,
    },
}

const FUNCTIONS: &[Function] = &[
    Function {
        name: "api_default",
        variables: &[],
        tables: &[],
        source: Source::Api,
    },
    Function {
        name: "api_events",
        variables: &["TABLE_RECORDS", "TABLE_OUTBOX", "SECRET_PLATFORM"],
        tables: &[
            // The merchant; event, record and order at once; then all three are put.
            ("Records", &["GetItem", "BatchGetItem", "UpdateItem"]),
            ("Outbox", &["UpdateItem"]),
        ],
        source: Source::Api,
    },
    Function {
        name: "api_merchants",
        variables: &["TABLE_RECORDS", "SECRET_PLATFORM"],
        tables: &[("Records", &["GetItem", "UpdateItem"])],
        source: Source::Api,
    },
    Function {
        name: "api_integrations",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_CONNECTIONS",
            "TABLE_LEDGER",
            "SECRET_PLATFORM",
            "SECRET_PROVIDER_PREFIX",
            "SECRET_VAULT",
            "PUBLIC_URL",
            "RETURN_URLS",
            "ENABLE_ACCOUNTING_SYNC",
            "ENABLE_CRM_SYNC",
            "ENABLE_EMAIL_MARKETING",
            "ENABLE_ADDITIONAL_PAYMENTS",
            "ENABLE_LOYALTY_INTEGRATION",
            // Where a confirmation may be sent, and where a provider is asked.
            "NET_ALLOW_LOOPBACK",
        ],
        tables: &[
            // The merchant; the event of a change.
            ("Records", &["GetItem", "UpdateItem"]),
            ("Outbox", &["UpdateItem"]),
            // One connection, all of them with their health; links and changes; what was due.
            (
                "Connections",
                &[
                    "GetItem",
                    "BatchGetItem",
                    "Query",
                    "UpdateItem",
                    "DeleteItem",
                ],
            ),
            // What is left to a company's calls, and how it is set up; whether guests were booked.
            ("Ledger", &["GetItem", "Query", "UpdateItem"]),
        ],
        source: Source::Api,
    },
    Function {
        name: "api_records",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_CONNECTIONS",
            "TABLE_LEDGER",
            "SECRET_PLATFORM",
            "QUEUE_SYNC_QUICKBOOKS_URL",
            "QUEUE_SYNC_XERO_URL",
            "QUEUE_RECONCILE_URL",
            "ENABLE_ACCOUNTING_SYNC",
            "ENABLE_CRM_SYNC",
            "ENABLE_EMAIL_MARKETING",
            "ENABLE_ADDITIONAL_PAYMENTS",
            "ENABLE_LOYALTY_INTEGRATION",
        ],
        tables: &[
            // The merchant; the records of a page, and those of a day that stand behind a summary.
            ("Records", &["GetItem", "BatchGetItem", "Query"]),
            // One connection, or all for their sum.
            ("Connections", &["GetItem", "Query"]),
            // One row, those of a page, those that something points to; a count, a resync, a backfill, a
            // reconciliation and its findings; a row that is repaired, with what points to it.
            (
                "Ledger",
                &[
                    "GetItem",
                    "BatchGetItem",
                    "Query",
                    "UpdateItem",
                    "DeleteItem",
                ],
            ),
        ],
        source: Source::Api,
    },
    Function {
        name: "api_webhooks",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_WEBHOOKS",
            "QUEUE_WEBHOOK_RETRY_URL",
            "SECRET_PLATFORM",
            "SECRET_VAULT",
            // A literal address is refused at once.
            "NET_ALLOW_LOOPBACK",
            "ENABLE_WEBHOOKS",
        ],
        tables: &[
            // The merchant and events; a sample.
            ("Records", &["GetItem", "UpdateItem"]),
            (
                "Webhooks",
                &["GetItem", "Query", "UpdateItem", "DeleteItem"],
            ),
        ],
        source: Source::Api,
    },
    Function {
        name: "oauth_start",
        variables: &[
            "TABLE_CONNECTIONS",
            "SECRET_PROVIDER_PREFIX",
            "SECRET_VAULT",
            "PUBLIC_URL",
            "ENABLE_ACCOUNTING_SYNC",
            "ENABLE_CRM_SYNC",
            "ENABLE_EMAIL_MARKETING",
            "ENABLE_ADDITIONAL_PAYMENTS",
            "ENABLE_LOYALTY_INTEGRATION",
        ],
        // The link is read, the state is put.
        tables: &[("Connections", &["GetItem", "UpdateItem"])],
        source: Source::Api,
    },
    Function {
        name: "oauth_callback",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_CONNECTIONS",
            "SECRET_PROVIDER_PREFIX",
            "SECRET_VAULT",
            "PUBLIC_URL",
            "ENABLE_ACCOUNTING_SYNC",
            "ENABLE_CRM_SYNC",
            "ENABLE_EMAIL_MARKETING",
            "ENABLE_ADDITIONAL_PAYMENTS",
            "ENABLE_LOYALTY_INTEGRATION",
            "NET_ALLOW_LOOPBACK",
        ],
        // State and link are deleted, the merchant's connections listed, one of them put; that it is
        // live is told by an event.
        tables: &[
            ("Records", &["UpdateItem"]),
            ("Outbox", &["UpdateItem"]),
            (
                "Connections",
                &["GetItem", "Query", "UpdateItem", "DeleteItem"],
            ),
        ],
        source: Source::Api,
    },
    Function {
        name: "hooks_intake",
        variables: &[
            "PUBLIC_URL",
            "TABLE_LEDGER",
            "SECRET_PROVIDER_PREFIX",
            "QUEUE_HOOKS_URL",
            // A stand-in's certificate.
            "NET_ALLOW_LOOPBACK",
        ],
        // Whether an event came before.
        tables: &[("Ledger", &["GetItem", "UpdateItem"])],
        source: Source::Api,
    },
    Function {
        name: "hooks_apply",
        variables: &["TABLE_CONNECTIONS", "TABLE_LEDGER", "QUEUE_PULL_URL"],
        tables: &[
            // Whose an account is, and the connection.
            ("Connections", &["GetItem"]),
            ("Ledger", &["GetItem", "UpdateItem"]),
        ],
        source: Source::Queue("Hooks"),
    },
    Function {
        name: "outbox_relay",
        variables: &["TABLE_OUTBOX", "BUS_NAME"],
        tables: &[("Outbox", &["DeleteItem"])],
        source: Source::Stream {
            table: "Outbox",
            dead: "OutboxRelay",
        },
    },
    Function {
        name: "outbox_sweep",
        variables: &["TABLE_OUTBOX", "BUS_NAME"],
        tables: &[("Outbox", &["Scan", "DeleteItem"])],
        source: Source::Queue("OutboxSweep"),
    },
    Function {
        name: "refresh_plan",
        variables: &[
            "TABLE_CONNECTIONS",
            "QUEUE_REFRESH_URL",
            "ENABLE_ACCOUNTING_SYNC",
            "ENABLE_CRM_SYNC",
            "ENABLE_EMAIL_MARKETING",
            "ENABLE_ADDITIONAL_PAYMENTS",
            "ENABLE_LOYALTY_INTEGRATION",
        ],
        // The cursor and the rows of a minute; what is switched off moves to another day.
        tables: &[(
            "Connections",
            &["GetItem", "Query", "UpdateItem", "DeleteItem"],
        )],
        source: Source::Queue("RefreshPlan"),
    },
    Function {
        name: "refresh_run",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_CONNECTIONS",
            "SECRET_PROVIDER_PREFIX",
            "SECRET_VAULT",
            "ENABLE_ACCOUNTING_SYNC",
            "ENABLE_CRM_SYNC",
            "ENABLE_EMAIL_MARKETING",
            "ENABLE_ADDITIONAL_PAYMENTS",
            "ENABLE_LOYALTY_INTEGRATION",
            "NET_ALLOW_LOOPBACK",
        ],
        tables: &[
            // The event of a connection that ended.
            ("Records", &["UpdateItem"]),
            ("Outbox", &["UpdateItem"]),
            ("Connections", &["GetItem", "UpdateItem", "DeleteItem"]),
        ],
        source: Source::Queue("Refresh"),
    },
    Function {
        name: "reconcile_plan",
        variables: &[
            "TABLE_CONNECTIONS",
            "QUEUE_RECONCILE_URL",
            "ENABLE_ACCOUNTING_SYNC",
        ],
        tables: &[("Connections", &["Scan"])],
        source: Source::Queue("ReconcilePlan"),
    },
    Function {
        name: "reconcile_run",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_CONNECTIONS",
            "TABLE_LEDGER",
            "SECRET_PROVIDER_PREFIX",
            "SECRET_VAULT",
            "ENABLE_ACCOUNTING_SYNC",
            "QUEUE_SYNC_QUICKBOOKS_URL",
            "QUEUE_SYNC_XERO_URL",
            "QUEUE_RECONCILE_URL",
            "NET_ALLOW_LOOPBACK",
        ],
        tables: &[
            // What happened on a day, and the records of it; the event of a connection that ended.
            ("Records", &["GetItem", "Query", "UpdateItem"]),
            ("Outbox", &["UpdateItem"]),
            ("Connections", &["GetItem", "UpdateItem", "DeleteItem"]),
            // Rows of documents in bulk; the company's settings; findings in bulk.
            (
                "Ledger",
                &["GetItem", "BatchGetItem", "UpdateItem", "BatchWriteItem"],
            ),
        ],
        source: Source::Queue("Reconcile"),
    },
    Function {
        name: "vault_rotate",
        variables: &[
            "TABLE_CONNECTIONS",
            "TABLE_WEBHOOKS",
            "SECRET_VAULT",
            "QUEUE_VAULT_ROTATE_URL",
        ],
        tables: &[
            ("Connections", &["Scan", "GetItem", "UpdateItem"]),
            ("Webhooks", &["Scan", "GetItem", "UpdateItem"]),
        ],
        source: Source::Queue("VaultRotate"),
    },
    Function {
        name: "sync_quickbooks",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_CONNECTIONS",
            "TABLE_LEDGER",
            "SECRET_PROVIDER_PREFIX",
            "SECRET_VAULT",
            "ENABLE_ACCOUNTING_SYNC",
            "QUEUE_SYNC_QUICKBOOKS_URL",
            "NET_ALLOW_LOOPBACK",
        ],
        tables: &[
            // Records, those of a resync in bulk and those of a backfill by day; the event of a connection that ended.
            (
                "Records",
                &["GetItem", "BatchGetItem", "Query", "UpdateItem"],
            ),
            ("Outbox", &["UpdateItem"]),
            // All connections; one again for its tokens, which are put when they are renewed.
            (
                "Connections",
                &["GetItem", "Query", "UpdateItem", "DeleteItem"],
            ),
            // One document's row, with what points to it; those of customers and items in bulk; those
            // that wait.
            (
                "Ledger",
                &[
                    "GetItem",
                    "BatchGetItem",
                    "Query",
                    "UpdateItem",
                    "DeleteItem",
                    "BatchWriteItem",
                ],
            ),
        ],
        source: Source::Queue("SyncQuickbooks"),
    },
    Function {
        name: "sync_xero",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_CONNECTIONS",
            "TABLE_LEDGER",
            "SECRET_PROVIDER_PREFIX",
            "SECRET_VAULT",
            "ENABLE_ACCOUNTING_SYNC",
            "QUEUE_SYNC_XERO_URL",
            "NET_ALLOW_LOOPBACK",
        ],
        tables: &[
            // Records, those of a resync in bulk and those of a backfill by day; the event of a connection that ended.
            (
                "Records",
                &["GetItem", "BatchGetItem", "Query", "UpdateItem"],
            ),
            ("Outbox", &["UpdateItem"]),
            // All connections; one again for its tokens, which are put when they are renewed.
            (
                "Connections",
                &["GetItem", "Query", "UpdateItem", "DeleteItem"],
            ),
            // One document's row, with what points to it; those of customers and items in bulk; those
            // that wait.
            (
                "Ledger",
                &[
                    "GetItem",
                    "BatchGetItem",
                    "Query",
                    "UpdateItem",
                    "DeleteItem",
                    "BatchWriteItem",
                ],
            ),
        ],
        source: Source::Queue("SyncXero"),
    },
    Function {
        name: "pull_plan",
        variables: &[
            "TABLE_CONNECTIONS",
            "QUEUE_PULL_URL",
            "ENABLE_ACCOUNTING_SYNC",
        ],
        // The connections of one slot; those that have none yet, once over all.
        tables: &[(
            "Connections",
            &[
                "GetItem",
                "Query",
                "Scan",
                "UpdateItem",
                "ConditionCheckItem",
            ],
        )],
        source: Source::Queue("PullPlan"),
    },
    Function {
        name: "pull_run",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_CONNECTIONS",
            "TABLE_LEDGER",
            "SECRET_PROVIDER_PREFIX",
            "SECRET_VAULT",
            "ENABLE_ACCOUNTING_SYNC",
            "QUEUE_PULL_URL",
            "NET_ALLOW_LOOPBACK",
        ],
        tables: &[
            // The record of a row, where the newest wins; the event of a change.
            ("Records", &["GetItem", "UpdateItem"]),
            ("Outbox", &["UpdateItem"]),
            // The connection, its tokens and its history.
            ("Connections", &["GetItem", "UpdateItem", "DeleteItem"]),
            // Rows, whose the provider's things are, notes of webhooks, the cursor.
            (
                "Ledger",
                &[
                    "GetItem",
                    "BatchGetItem",
                    "Query",
                    "UpdateItem",
                    "DeleteItem",
                ],
            ),
        ],
        source: Source::Queue("Pull"),
    },
    Function {
        name: "webhook_fanout",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_WEBHOOKS",
            "QUEUE_WEBHOOK_DELIVER_URL",
            "ENABLE_WEBHOOKS",
        ],
        tables: &[
            // The event, where a filter or an order asks for it.
            ("Records", &["GetItem"]),
            ("Webhooks", &["GetItem", "Query", "UpdateItem"]),
        ],
        source: Source::Queue("WebhookFanout"),
    },
    Function {
        name: "webhook_deliver",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_WEBHOOKS",
            "QUEUE_WEBHOOK_DELIVER_URL",
            "QUEUE_WEBHOOK_RETRY_URL",
            "QUEUE_WEBHOOK_SLOW_URL",
            "SECRET_VAULT",
            "NET_ALLOW_LOOPBACK",
            "ENABLE_WEBHOOKS",
        ],
        tables: &[
            // The event; the one that tells of an endpoint that fails.
            ("Records", &["BatchGetItem", "UpdateItem"]),
            ("Outbox", &["UpdateItem"]),
            ("Webhooks", &["GetItem", "BatchGetItem", "UpdateItem"]),
        ],
        source: Source::Queue("WebhookDeliver"),
    },
    Function {
        name: "webhook_retry",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_WEBHOOKS",
            "QUEUE_WEBHOOK_DELIVER_URL",
            "QUEUE_WEBHOOK_RETRY_URL",
            "QUEUE_WEBHOOK_SLOW_URL",
            "SECRET_VAULT",
            "NET_ALLOW_LOOPBACK",
            "ENABLE_WEBHOOKS",
        ],
        tables: &[
            ("Records", &["BatchGetItem", "UpdateItem"]),
            ("Outbox", &["UpdateItem"]),
            // The same, and the pages of a recovery.
            (
                "Webhooks",
                &["GetItem", "BatchGetItem", "Query", "UpdateItem"],
            ),
        ],
        source: Source::Queue("WebhookRetry"),
    },
    Function {
        name: "webhook_slow",
        variables: &[
            "TABLE_RECORDS",
            "TABLE_OUTBOX",
            "TABLE_WEBHOOKS",
            "QUEUE_WEBHOOK_DELIVER_URL",
            "QUEUE_WEBHOOK_RETRY_URL",
            "QUEUE_WEBHOOK_SLOW_URL",
            "SECRET_VAULT",
            "NET_ALLOW_LOOPBACK",
            "ENABLE_WEBHOOKS",
        ],
        tables: &[
            ("Records", &["BatchGetItem", "UpdateItem"]),
            ("Outbox", &["UpdateItem"]),
            ("Webhooks", &["GetItem", "BatchGetItem", "UpdateItem"]),
        ],
        source: Source::Queue("WebhookSlow"),
    },
    Function {
        name: "webhook_plan",
        variables: &["TABLE_WEBHOOKS", "QUEUE_WEBHOOK_RETRY_URL"],
        // The cursor and the rows of a minute.
        tables: &[(
            "Webhooks",
            &["GetItem", "Query", "UpdateItem", "DeleteItem"],
        )],
        source: Source::Queue("WebhookPlan"),
    },
];

/// `api_events` is `ApiEvents` in the template.
pub fn camel(name: &str) -> String {
    let parts = name.split('_').map(|part| {
        let (first, rest) = part.split_at(1.min(part.len()));
        first.to_uppercase() + &rest.to_lowercase()
    });
    parts.collect()
}

pub fn template() -> Value {
    serde_yaml_ng::from_str(&read("infra/template.yaml")).expect("the template is YAML")
}

/// The resources of one type, by name.
pub fn resources(template: &Value, kind: &str) -> BTreeMap<String, Value> {
    let all = template["Resources"].as_mapping().expect("resources");
    let of_kind = all
        .iter()
        .filter(|(_, resource)| resource["Type"].as_str() == Some(kind));
    of_kind
        .map(|(name, resource)| (text(name), resource["Properties"].clone()))
        .collect()
}

/// A value in short form: `!GetAtt A.Arn` is `A.Arn`, `!Ref A` is `A`, `!Sub x` is `x`; what has more
/// parts is shown as it was read.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Tagged(tagged) if tagged.value.is_string() => text(&tagged.value),
        Value::Number(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Sequence(items) => items.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    }
}

fn keys(value: &Value) -> Vec<String> {
    value
        .as_mapping()
        .map(|mapping| mapping.keys().map(text).collect())
        .unwrap_or_default()
}

/// What a tag holds, if it is `tag`.
fn tagged<'a>(value: &'a Value, tag: &str) -> Option<&'a Value> {
    match value {
        Value::Tagged(tagged) if tagged.tag == tag => {
            let TaggedValue { value, .. } = tagged.as_ref();
            Some(value)
        }
        _ => None,
    }
}

fn functions(template: &Value) -> BTreeMap<String, Value> {
    resources(template, "AWS::Serverless::Function")
}

/// Every action that a function's role allows, with its resource.
pub fn grants(template: &Value, function: &str) -> BTreeSet<(String, String)> {
    let roles = resources(template, "AWS::IAM::Role");
    let properties = &functions(template)[&format!("Function{}", camel(function))];
    let name = text(&properties["Role"]);
    let role = &roles[name.trim_end_matches(".Arn")];
    assert!(
        role["ManagedPolicyArns"].is_null() && properties["Policies"].is_null(),
        "{function} has permissions that are not listed in its role"
    );
    let mut grants = BTreeSet::new();
    for policy in list(&role["Policies"]) {
        for statement in list(&policy["PolicyDocument"]["Statement"]) {
            assert_eq!(text(&statement["Effect"]), "Allow", "{function}");
            for action in list(&statement["Action"]) {
                for resource in list(&statement["Resource"]) {
                    let fresh = grants.insert((text(&action), text(&resource)));
                    assert!(fresh, "{function} is granted {} twice", text(&action));
                }
            }
        }
    }
    grants
}

/// The secrets of the providers that `function` deals with: of its own one, or of all.
pub fn provider_secrets(function: &str) -> Vec<String> {
    let own = function.strip_prefix("sync_");
    let mut providers = PROVIDERS.to_vec();
    // Only those whose webhooks it takes.
    providers.retain(|provider| function != "hooks_intake" || provider.hooks().is_some());
    // Only those that keep books.
    let books = |name: &str| crossdock::providers::accounting::accounting(name).is_some();
    let of_books = ["pull_run", "reconcile_run"].contains(&function);
    providers.retain(|one| !of_books || books(one.manifest().name));
    let names = providers.iter().map(|provider| provider.manifest().name);
    names
        .filter(|name| own.is_none_or(|own| own == *name))
        .map(|name| format!("Secret{}", camel(name)))
        .collect()
}

/// What the role of `function` has to allow, by what the function uses.
fn needed(function: &Function) -> BTreeSet<(String, String)> {
    let own = camel(function.name);
    let mut needed = BTreeSet::new();
    let mut need = |actions: &[&str], service: &str, resource: String| {
        for action in actions {
            needed.insert((format!("{service}:{action}"), resource.clone()));
        }
    };
    need(
        &["CreateLogStream", "PutLogEvents"],
        "logs",
        format!("Logs{own}.Arn"),
    );
    for (table, actions) in function.tables {
        need(actions, "dynamodb", format!("Table{table}.Arn"));
    }
    for variable in function.variables {
        if *variable == "SECRET_PROVIDER_PREFIX" {
            for secret in provider_secrets(function.name) {
                need(&["GetSecretValue"], "secretsmanager", secret);
            }
        } else if let Some(secret) = variable.strip_prefix("SECRET_") {
            need(
                &["GetSecretValue"],
                "secretsmanager",
                format!("Secret{}", camel(secret)),
            );
        } else if let Some(queue) = variable.strip_prefix("QUEUE_") {
            let queue = camel(queue.trim_end_matches("_URL"));
            need(&["SendMessage"], "sqs", format!("Queue{queue}.Arn"));
        } else if *variable == "BUS_NAME" {
            need(&["PutEvents"], "events", "Bus.Arn".to_owned());
        }
    }
    if function.name == "vault_rotate" {
        need(
            &["PutSecretValue"],
            "secretsmanager",
            "SecretVault".to_owned(),
        );
    }
    match &function.source {
        Source::Api => {}
        Source::Queue(queue) => need(
            &["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"],
            "sqs",
            format!("Queue{queue}.Arn"),
        ),
        Source::Stream { table, dead } => {
            need(
                &["DescribeStream", "GetRecords", "GetShardIterator"],
                "dynamodb",
                format!("Table{table}.StreamArn"),
            );
            need(
                &["ListStreams"],
                "dynamodb",
                format!("${{Table{table}.Arn}}/stream/*"),
            );
            need(&["SendMessage"], "sqs", format!("Dead{dead}.Arn"));
        }
    }
    needed
}

#[test]
fn every_binary_is_deployed_once() {
    let template = template();
    let mut binaries: Vec<String> = files("functions/src/bin")
        .iter()
        .map(|file| file.name().trim_end_matches(".rs").to_owned())
        .collect();
    let mut deployed: Vec<String> = functions(&template)
        .values()
        .map(|function| {
            let folder = text(&function["CodeUri"]);
            let name = folder.trim_end_matches('/').rsplit('/').next();
            name.unwrap_or_default().to_owned()
        })
        .collect();
    let mut known: Vec<String> = FUNCTIONS.iter().map(|f| f.name.to_owned()).collect();
    for names in [&mut binaries, &mut deployed, &mut known] {
        names.sort();
    }
    assert_eq!(binaries, deployed, "binaries (left) and template (right)");
    assert_eq!(binaries, known, "binaries (left) and this test (right)");
    let mut wrong = Vec::new();
    for (resource, function) in functions(&template) {
        let folder = text(&function["CodeUri"]);
        let name = folder
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default();
        let expected = format!("crossdock-${{Environment}}-{name}");
        if text(&function["FunctionName"]) != expected
            || resource != format!("Function{}", camel(name))
        {
            wrong.push(resource);
        }
    }
    none("functions that are not named after their binary", wrong);
}

/// The queues into which nothing but failures goes.
fn is_dead(name: &str) -> bool {
    name.starts_with("Dead")
}

#[test]
fn every_queue_has_a_dead_letter_queue_with_an_alarm() {
    let template = template();
    let queues = resources(&template, "AWS::SQS::Queue");
    let alarms = resources(&template, "AWS::CloudWatch::Alarm");
    let mut wrong = Vec::new();
    for (name, queue) in &queues {
        if is_dead(name) {
            let watches = |alarm: &Value| {
                text(&alarm["Namespace"]) == "AWS/SQS"
                    && text(&alarm["MetricName"]) == "ApproximateNumberOfMessagesVisible"
                    && text(&alarm["ComparisonOperator"]) == "GreaterThanThreshold"
                    && text(&alarm["Threshold"]) == "0"
                    && list(&alarm["Dimensions"])
                        .iter()
                        .any(|dimension| text(&dimension["Value"]) == format!("{name}.QueueName"))
            };
            if !alarms.values().any(watches) {
                wrong.push(format!("{name} has no alarm"));
            }
            continue;
        }
        let target = text(&queue["RedrivePolicy"]["deadLetterTargetArn"]);
        let dead = target.trim_end_matches(".Arn");
        if !is_dead(dead) || !queues.contains_key(dead) {
            wrong.push(format!("{name} has no dead-letter queue"));
        }
        if queue["RedrivePolicy"]["maxReceiveCount"].as_u64().is_none() {
            wrong.push(format!("{name} does not say how often it tries"));
        }
    }
    none("queues that lose messages in silence", wrong);
}

#[test]
fn every_source_takes_back_single_messages() {
    let template = template();
    let mut wrong = Vec::new();
    for function in FUNCTIONS {
        let properties = &functions(&template)[&format!("Function{}", camel(function.name))];
        let sources: Vec<Value> = properties["Events"]
            .as_mapping()
            .map(|events| events.values().cloned().collect())
            .unwrap_or_default();
        let expected = match &function.source {
            Source::Api => None,
            Source::Queue(queue) => Some(("SQS", "Queue", format!("Queue{queue}.Arn"))),
            Source::Stream { table, .. } => {
                Some(("DynamoDB", "Stream", format!("Table{table}.StreamArn")))
            }
        };
        let Some((kind, field, from)) = expected else {
            if !sources.is_empty() {
                wrong.push(format!("{} is called by more than the API", function.name));
            }
            continue;
        };
        let [source] = sources.as_slice() else {
            wrong.push(format!("{} has {} sources", function.name, sources.len()));
            continue;
        };
        if text(&source["Type"]) != kind || text(&source["Properties"][field]) != from {
            wrong.push(format!("{} is not called by {from}", function.name));
        }
        let types = list(&source["Properties"]["FunctionResponseTypes"]);
        if types.iter().map(text).collect::<Vec<_>>() != ["ReportBatchItemFailures"] {
            wrong.push(format!("{} lacks ReportBatchItemFailures", function.name));
        }
        if let Source::Stream { dead, .. } = &function.source {
            let failed = &source["Properties"]["DestinationConfig"]["OnFailure"]["Destination"];
            if text(failed) != format!("Dead{dead}.Arn") {
                wrong.push(format!("{} leaves no word of failures", function.name));
            }
        }
    }
    none("event sources", wrong);
}

#[test]
fn every_rule_targets_a_queue_that_admits_it() {
    let template = template();
    let queues = resources(&template, "AWS::SQS::Queue");
    let policies = resources(&template, "AWS::SQS::QueuePolicy");
    let mut wrong = Vec::new();
    for (rule, properties) in resources(&template, "AWS::Events::Rule") {
        let targets = list(&properties["Targets"]);
        if targets.is_empty() {
            wrong.push(format!("{rule} has no target"));
        }
        for target in targets {
            let dead = text(&target["DeadLetterConfig"]["Arn"]);
            if !is_dead(&dead) {
                wrong.push(format!("{rule} has no dead-letter queue"));
            }
            for arn in [text(&target["Arn"]), dead] {
                let queue = arn.trim_end_matches(".Arn");
                if !queues.contains_key(queue) {
                    wrong.push(format!("{rule} targets {arn}, which is no queue"));
                }
                let admits = policies.values().any(|policy| {
                    list(&policy["Queues"]).iter().any(|q| text(q) == queue)
                        && list(&policy["PolicyDocument"]["Statement"])
                            .iter()
                            .any(|statement| {
                                let sources = &statement["Condition"]["ArnEquals"]["aws:SourceArn"];
                                list(sources)
                                    .iter()
                                    .any(|s| text(s) == format!("{rule}.Arn"))
                            })
                });
                if !admits {
                    wrong.push(format!("{queue} does not admit {rule}"));
                }
            }
        }
    }
    none("rules", wrong);
}

/// A category that is switched off sends nothing to its queues.
#[test]
fn the_rule_of_a_provider_follows_the_switch_of_its_category() {
    let template = template();
    let rules = resources(&template, "AWS::Events::Rule");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for function in FUNCTIONS {
        let Some(name) = function.name.strip_prefix("sync_") else {
            continue;
        };
        seen += 1;
        let provider = crossdock::providers::provider(name).expect("a provider");
        let switch = camel(provider.manifest().category.switch());
        let condition = switch.replacen("Enable", "Has", 1);
        let state = format!("!If [{condition}, ENABLED, DISABLED]");
        let means = format!("!Equals [!Ref {switch}, \"true\"]");
        let yaml = |text: &str| -> Value { serde_yaml_ng::from_str(text).expect("YAML") };
        let rule = &rules[&format!("Rule{}", camel(function.name))];
        if rule["State"] != yaml(&state) || template["Conditions"][&*condition] != yaml(&means) {
            wrong.push(format!("{name} is not switched by {switch}"));
        }
        // What waits for a connection is taken up when it is live again.
        let types = list(&rule["EventPattern"]["detail-type"]);
        if !types
            .iter()
            .any(|kind| text(kind) == "connection.connected")
        {
            wrong.push(format!("{name} does not hear of connections"));
        }
    }
    assert!(seen > 0);
    none("rules", wrong);
}

/// The value outside the local stack: `!If [IsLocal, a, b]` is `b`.
fn deployed(value: &Value) -> Option<u64> {
    match tagged(value, "If").and_then(Value::as_sequence) {
        Some(parts) if text(&parts[0]) == "IsLocal" => parts[2].as_u64(),
        Some(_) => None,
        None => value.as_u64(),
    }
}

#[test]
fn a_message_stays_hidden_for_six_timeouts() {
    let template = template();
    let queues = resources(&template, "AWS::SQS::Queue");
    let default = template["Globals"]["Function"]["Timeout"].as_u64();
    let mut wrong = Vec::new();
    for function in FUNCTIONS {
        let Source::Queue(queue) = &function.source else {
            continue;
        };
        let properties = &functions(&template)[&format!("Function{}", camel(function.name))];
        let timeout = properties["Timeout"].as_u64().or(default).unwrap_or(3);
        let hidden = deployed(&queues[&format!("Queue{queue}")]["VisibilityTimeout"]);
        if hidden.is_none_or(|hidden| hidden < 6 * timeout) {
            wrong.push(format!("{queue}: {hidden:?} s for {timeout} s"));
        }
    }
    none("queues that give a message to two functions at once", wrong);
    assert_eq!(
        text(&template["Conditions"]["IsLocal"]),
        text(&serde_yaml_ng::from_str("!Equals [!Ref Environment, local]").expect("YAML")),
        "the short times are for the local stack alone"
    );
}

/// Records are sent to every queue of a provider again, and what the ledger says of the next try is what
/// that queue does.
#[test]
fn what_is_pushed_can_be_retried() {
    let template = template();
    let queues = resources(&template, "AWS::SQS::Queue");
    let api = FUNCTIONS.iter().find(|f| f.name == "api_records");
    let api = api.expect("the function that retries");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for function in FUNCTIONS.iter().filter(|f| f.name.starts_with("sync_")) {
        seen += 1;
        let variable = format!("QUEUE_{}_URL", function.name.to_uppercase());
        if !api.variables.contains(&variable.as_str()) {
            wrong.push(format!("api_records does not know {variable}"));
        }
        let queue = format!("Queue{}", camel(function.name));
        let hidden = deployed(&queues[&queue]["VisibilityTimeout"]);
        let said = crossdock::engine::ledger::RETRY_AFTER.num_seconds();
        if hidden != u64::try_from(said).ok() {
            wrong.push(format!("{queue}: {hidden:?} s, and the ledger says {said}"));
        }
    }
    assert!(seen > 0);
    none("records that cannot be sent again", wrong);
}

/// A `Resource` with a star has a comment right above it or beside it.
#[test]
fn every_star_has_a_reason() {
    let source = read("infra/template.yaml");
    let lines: Vec<&str> = source.lines().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut inside = None;
    for (index, line) in lines.iter().enumerate() {
        let indentation = line.len() - line.trim_start().len();
        let starts = line
            .trim_start()
            .trim_start_matches("- ")
            .starts_with("Resource:");
        if starts {
            seen += 1;
            inside = Some(indentation);
        } else if inside.is_some_and(|of| indentation <= of) {
            inside = None;
        }
        if inside.is_none() || line.trim_start().starts_with('#') {
            continue;
        }
        let value = line.split(" #").next().unwrap_or_default();
        let explained =
            value != *line || index > 0 && lines[index - 1].trim_start().starts_with('#');
        if value.contains('*') && !explained {
            wrong.push(format!("line {}: {}", index + 1, line.trim()));
        }
    }
    assert!(seen > 20, "only {seen} resources were read");
    none("permissions for everything, without a reason", wrong);
}

#[test]
fn functions_get_exactly_the_variables_they_use() {
    let template = template();
    let known: BTreeSet<String> = crossdock::config::variables()
        .map(|(name, _)| name)
        .collect();
    let globals = keys(&template["Globals"]["Function"]["Environment"]["Variables"]);
    let mut given = BTreeSet::new();
    let mut wrong = Vec::new();
    for function in FUNCTIONS {
        let properties = &functions(&template)[&format!("Function{}", camel(function.name))];
        let variables = &properties["Environment"]["Variables"];
        let set: BTreeSet<String> = keys(variables).into_iter().chain(globals.clone()).collect();
        let used: BTreeSet<String> = function.variables.iter().map(|v| (*v).to_owned()).collect();
        for name in set.difference(&used) {
            wrong.push(format!("{} gets {name} and does not use it", function.name));
        }
        for name in used.difference(&set) {
            wrong.push(format!("{} uses {name} and does not get it", function.name));
        }
        for name in set.iter().filter(|name| !known.contains(name.as_str())) {
            wrong.push(format!("{name} is not in shared/src/config.rs"));
        }
        for name in set.intersection(&used) {
            let value = text(&variables[name.as_str()]);
            let meant = match name.split_once('_') {
                Some(("TABLE", rest)) => Some(format!("Table{}", camel(rest))),
                Some(("SECRET", "PROVIDER_PREFIX")) => {
                    Some("crossdock-${Environment}-provider-".to_owned())
                }
                Some(("SECRET", rest)) => Some(format!("Secret{}", camel(rest))),
                Some(("QUEUE", rest)) => {
                    Some(format!("Queue{}", camel(rest.trim_end_matches("_URL"))))
                }
                Some(("BUS", _)) => Some("Bus".to_owned()),
                _ => None,
            };
            if meant.as_ref().is_some_and(|meant| *meant != value) {
                wrong.push(format!("{}: {name} is {value}", function.name));
            }
        }
        given.extend(set);
    }
    for name in known.iter().filter(|name| !given.contains(name.as_str())) {
        wrong.push(format!("no function gets {name}"));
    }
    none("environment variables", wrong);
}

#[test]
fn functions_may_do_exactly_what_they_do() {
    let template = template();
    let mut wrong = Vec::new();
    for function in FUNCTIONS {
        let granted = grants(&template, function.name);
        let needed = needed(function);
        for (action, resource) in granted.difference(&needed) {
            wrong.push(format!("{} need not {action} {resource}", function.name));
        }
        for (action, resource) in needed.difference(&granted) {
            wrong.push(format!("{} lacks {action} {resource}", function.name));
        }
    }
    none("permissions", wrong);
}

/// The list above agrees with itself: who has a table's name does something to it.
#[test]
fn a_table_that_is_named_is_used() {
    let mut wrong = Vec::new();
    for function in FUNCTIONS {
        let named: BTreeSet<String> = function
            .variables
            .iter()
            .filter_map(|name| Some(camel(name.strip_prefix("TABLE_")?)))
            .collect();
        let used: BTreeSet<String> = function
            .tables
            .iter()
            .filter(|(_, actions)| !actions.is_empty())
            .map(|(table, _)| (*table).to_owned())
            .collect();
        if named != used {
            wrong.push(format!("{}: {named:?} and {used:?}", function.name));
        }
    }
    none("tables by variable and by action", wrong);
}

/// Which permission a call of the SDK needs. In a transaction it is that of each write.
const CALLS: [(&str, &str); 10] = [
    (".get_item()", "GetItem"),
    (".batch_get_item()", "BatchGetItem"),
    (".query()", "Query"),
    (".scan()", "Scan"),
    (".put_item()", "PutItem"),
    (".update_item()", "UpdateItem"),
    (".delete_item()", "DeleteItem"),
    (".batch_write_item()", "BatchWriteItem"),
    ("Put::builder()", "PutItem"),
    ("Update::builder()", "UpdateItem"),
];

/// Nobody is granted a way to the tables that the store does not have: a store that begins to use
/// PutItem fails here until the list above says who needs it.
#[test]
fn permissions_follow_the_calls_of_the_store() {
    let all = files("shared/src/store");
    let store = all.iter().find(|file| file.name() == "dynamo.rs");
    let code: String = code(store.expect("the store in DynamoDB"))
        .iter()
        .map(|(_, line)| line.trim())
        .collect();
    let mut made: BTreeSet<&str> = CALLS
        .iter()
        .filter(|(call, _)| {
            code.match_indices(call)
                .any(|(at, _)| call.starts_with('.') || !code[..at].ends_with(char::is_alphabetic))
        })
        .map(|(_, action)| *action)
        .collect();
    // A check is a kind of write that the store knows; it counts when something asks for one.
    let checks = files("shared/src").iter().any(|file| {
        !file.path.starts_with("shared/src/store/") && file.text.contains("Write::Check")
    });
    if checks {
        made.insert("ConditionCheckItem");
    }
    let listed: BTreeSet<&str> = FUNCTIONS
        .iter()
        .flat_map(|function| function.tables)
        .flat_map(|(_, actions)| actions.iter().copied())
        .collect();
    assert_eq!(
        made, listed,
        "calls of the store (left), permissions (right)"
    );
}

#[test]
fn routes_are_those_that_the_handlers_serve() {
    let template = template();
    let all = resources(&template, "AWS::ApiGatewayV2::Route");
    let integrations = resources(&template, "AWS::ApiGatewayV2::Integration");
    let mut deployed = BTreeSet::new();
    for route in all.values() {
        let target = text(&route["Target"]);
        let name = target
            .trim_start_matches("integrations/${")
            .trim_end_matches('}');
        let integration = &integrations[name];
        assert_eq!(text(&integration["PayloadFormatVersion"]), "2.0", "{name}");
        let function = text(&integration["IntegrationUri"]);
        deployed.insert((text(&route["RouteKey"]), function));
    }
    assert_eq!(deployed.len(), all.len(), "a route stands twice");
    let served: BTreeSet<(String, String)> = FUNCTIONS
        .iter()
        .flat_map(|function| {
            let arn = format!("Function{}.Arn", camel(function.name));
            let routes = routes(function.name).into_iter();
            routes.map(move |route| (route, arn.clone()))
        })
        .collect();
    assert_eq!(deployed, served, "template (left) and handlers (right)");
    let permissions = resources(&template, "AWS::Lambda::Permission");
    for function in FUNCTIONS
        .iter()
        .filter(|function| !routes(function.name).is_empty())
    {
        let name = format!("Function{}", camel(function.name));
        assert!(
            permissions
                .values()
                .any(|permission| text(&permission["FunctionName"]) == name),
            "the API may not call {}",
            function.name
        );
    }
}

/// The keys of the routes that a function serves; none for one that is not behind the API.
pub fn routes(function: &str) -> Vec<String> {
    let own = ROUTES.iter().filter(|route| route.function == function);
    let mut keys: Vec<String> = own
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    // What no route takes goes here.
    if function == "api_default" {
        keys.push("$default".to_owned());
    }
    keys
}

/// All functions, for the samples.
pub fn function_names() -> Vec<&'static str> {
    FUNCTIONS.iter().map(|function| function.name).collect()
}

/// `!Join ["true", !Split ["000000000000", account]]` is "true" for the account 000000000000, and the
/// account's own number, which is not "true", for every other. No parameter goes in.
#[test]
fn no_parameter_opens_loopback() {
    const SAFE: &str = r#"!Join ["true", !Split ["000000000000", !Ref AWS::AccountId]]"#;
    let safe: Value = serde_yaml_ng::from_str(SAFE).expect("YAML");
    let template = template();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (name, function) in functions(&template) {
        let value = &function["Environment"]["Variables"]["NET_ALLOW_LOOPBACK"];
        if !value.is_null() {
            seen += 1;
            if *value != safe {
                wrong.push(format!("{name}: {value:?}"));
            }
        }
    }
    let source = read("infra/template.yaml");
    let named = source
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter(|line| line.contains("NET_ALLOW_LOOPBACK"))
        .count();
    assert_eq!(named, seen, "it is set elsewhere than in a function");
    assert!(seen > 0);
    none("values that a parameter or a mistake can make true", wrong);
    // What the template computes, once for the local account and once for a real one.
    let computed = |account: &str| {
        let parts: Vec<&str> = account.split("000000000000").collect();
        parts.join("true")
    };
    assert_eq!(computed("000000000000"), "true");
    assert_eq!(computed("123456789012"), "123456789012");
}
