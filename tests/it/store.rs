//! The store over DynamoDB does what the store in memory does: the same cases run over both.

use crate::world::World;
use crossdock::store::cases;
use crossdock::store::dynamo::Dynamo;
use local::stack::aws;
use std::sync::Arc;

pub async fn test(world: Arc<World>) {
    let outputs = &world.stack.outputs;
    let names = [
        ("TABLE_RECORDS", "TableRecords"),
        ("TABLE_OUTBOX", "TableOutbox"),
        ("TABLE_CONNECTIONS", "TableConnections"),
        ("TABLE_LEDGER", "TableLedger"),
        ("TABLE_WEBHOOKS", "TableWebhooks"),
    ]
    .map(|(variable, output)| (variable, outputs[output].as_str()));
    let tables = crossdock::config::Config::of(&names).tables();
    assert_eq!(tables.len(), names.len());
    let key = aws_sdk_dynamodb::config::Credentials::new(
        aws::ACCESS_KEY,
        aws::ACCESS_KEY,
        None,
        None,
        "the local stack",
    );
    let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .region(aws_config::Region::new(aws::REGION))
        .credentials_provider(key)
        .endpoint_url(&world.stack.urls.aws)
        .load()
        .await;
    let run = format!("{:08x}", rand::random::<u32>());
    cases::run(&Dynamo::new(&config, tables), &run).await;
}
