//! SQS: makes a delivery for each endpoint that wants an event.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::fanout().await
}
