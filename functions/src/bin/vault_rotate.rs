//! SQS: rotates the vault's root key, a step at a time.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::rotate().await
}
