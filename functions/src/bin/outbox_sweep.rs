//! SQS, called every minute: puts on the bus what the stream left behind.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::sweep().await
}
