//! SQS: delivers to endpoints again what failed, or was asked for.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::retry().await
}
