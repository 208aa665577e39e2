//! API Gateway, `/api/v1/webhooks`: endpoints and their deliveries.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::http(crossdock::api::webhooks::handle).await
}
