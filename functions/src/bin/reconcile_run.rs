//! SQS: compares a day of a connection's books with what the shop says.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::reconcile().await
}
