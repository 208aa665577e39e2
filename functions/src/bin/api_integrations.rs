//! API Gateway, `/api/v1/integrations`: connect links and connections.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::http(crossdock::api::integrations::handle).await
}
