//! SQS: delivers to endpoints that are slow, signed.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::deliver().await
}
