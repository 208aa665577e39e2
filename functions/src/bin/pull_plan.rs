//! SQS: hands out the connections of which changes at the provider are to be read.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::pull_plan().await
}
