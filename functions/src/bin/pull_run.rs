//! SQS: reads what changed at providers.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::pull().await
}
