//! API Gateway, `GET /connect/{link}`: sends a merchant's browser to a provider.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::http(crossdock::api::connect_pages::start).await
}
