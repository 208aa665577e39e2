//! SQS, called every minute: hands out connections whose tokens are due for renewal.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::refresh_plan().await
}
