//! EventBridge schedule, by way of SQS: hands out the deliveries that are due again.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::webhook_plan().await
}
