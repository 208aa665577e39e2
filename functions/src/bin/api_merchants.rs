//! API Gateway, `/api/v1/merchants`: registers and reads merchants.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::http(crossdock::api::merchants::handle).await
}
