//! SQS: pushes paid orders and refunds to QuickBooks.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::push("quickbooks").await
}
