//! The provider rotates, and its answer never comes. Nobody is killed.

use super::{PROCESSES, VENDORS, imported, wave};
use crate::world::World;
use local::stack::host::Host;
use std::time::Instant;

/// How long the provider keeps its caller waiting before the connection breaks: long enough for the
/// others to come.
const HOLD_SECONDS: u64 = 2;

pub async fn test(world: &World, host: &Host) {
    let mut connections = Vec::new();
    for vendor in VENDORS {
        let connected = imported(world, vendor).await;
        let before = connected.asked(world).await;
        connected
            .lose_answer(world, "timeout_after_effect", HOLD_SECONDS)
            .await;
        let began = Instant::now();
        let returned = wave(host, vec![connected.due(); PROCESSES]).await;
        assert_eq!(returned, 0, "a failure is noted, and the message is done");
        let asked = connected.asked(world).await - before;
        eprintln!(
            "  {}, the answer lost: {PROCESSES} renewals within {:.1} s, {asked} token requests",
            vendor.name,
            began.elapsed().as_secs_f64()
        );
        // Who comes when the failure is noted already is the next try.
        assert!((1..=2).contains(&asked), "{}: {asked}", vendor.name);
        connections.push((connected, before));
    }
    // The queue tells again what is due, more than once.
    for round in 0..2 {
        let all = (0..PROCESSES).map(|index| connections[index % connections.len()].0.due());
        assert_eq!(wave(host, all.collect()).await, 0);
        for (connected, before) in &connections {
            let asked = connected.asked(world).await - before;
            let name = connected.vendor.name;
            assert_eq!(
                asked, 2,
                "{name}, {round}: the one that was lost, and one more"
            );
        }
    }
    for (connected, _) in &connections {
        connected.check(world, connected.vendor.forgives).await;
    }
}
