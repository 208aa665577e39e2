//! API Gateway, `/hooks`: webhooks of providers, verified and put into a queue.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::http(crossdock::api::hooks::handle).await
}
