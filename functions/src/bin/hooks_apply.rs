//! SQS: notes what webhooks of providers say has changed over there.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::hooks().await
}
