//! API Gateway, `/api/v1/integrations`: the records of a connection, their errors, and sending them again.

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), lambda_runtime::Error> {
    crossdock::runtime::http(crossdock::api::records::handle).await
}
