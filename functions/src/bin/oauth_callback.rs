//! API Gateway, `GET /oauth/cb/{provider}/{tenant}`: takes the browser back.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::http(crossdock::api::connect_pages::callback).await
}
