//! SQS: renews the tokens of connections that are due.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::refresh().await
}
