//! SQS, called every day: begins the reconciliations of live connections.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::reconcile_plan().await
}
