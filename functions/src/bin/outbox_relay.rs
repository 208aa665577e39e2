//! DynamoDB stream of the outbox: puts accepted events on the bus.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::relay().await
}
