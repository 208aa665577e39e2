//! The shipped samples, told by the program that `make demo` runs. Telling them again changes nothing.

use crate::world::World;
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::Arc;

pub async fn test(world: Arc<World>) {
    let first = tell(&world).await;
    let after_first = books(&world).await;
    assert!(
        after_first["receipts"].as_u64() >= Some(50),
        "{after_first}"
    );
    assert!(after_first["refunds"].as_u64() >= Some(10), "{after_first}");
    assert_eq!(after_first["duplicates"], json!([]));
    let received = world.received().await;
    let second = tell(&world).await;
    assert_eq!(
        books(&world).await,
        after_first,
        "the second telling changed the books"
    );
    assert_eq!(
        world.received().await,
        received,
        "the second telling sent webhooks of events that were known"
    );
    for side in [&first, &second] {
        assert!(side.is_object(), "the last line is the report: {side}");
    }
}

/// Runs the demonstration and returns the report of its last line.
async fn tell(world: &World) -> Value {
    let config = &world.stack.config;
    let addresses = &config.addresses;
    let providers = addresses.providers.iter().map(|(name, address)| {
        let variable = format!("ADDRESS_{}", name.to_uppercase());
        (variable, address.to_string())
    });
    let output = tokio::process::Command::new(&config.program)
        .arg("demo")
        .env("ADDRESS_API", addresses.api.to_string())
        .envs(providers)
        .env("ADDRESS_RECEIVER", addresses.receiver.to_string())
        .env("ADDRESS_AWS", addresses.aws.to_string())
        .env("CROSSDOCK_LOCAL_DIR", &config.directory)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .expect("the demonstration runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let tail: Vec<&str> = text.lines().rev().take(30).collect();
    for line in tail.iter().rev() {
        eprintln!("  | {line}");
    }
    assert!(output.status.success(), "the demonstration failed");
    serde_json::from_str(text.lines().last().unwrap_or_default()).expect("the report")
}

/// The company that the demonstration connects: the one that is always there.
async fn books(world: &World) -> Value {
    world.quickbooks("books", None).await
}
