//! SQS: pushes orders, payments and refunds to Xero.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::push("xero").await
}
