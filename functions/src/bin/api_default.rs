//! API Gateway, `$default`: health, and a problem document for unknown paths.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::http(crossdock::api::default::handle).await
}
