//! API Gateway, `POST /api/v1/events`: takes what happened in the shop.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::http(crossdock::api::events::handle).await
}
