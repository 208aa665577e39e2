//! The integration tests: the real template and the real functions on a local stack of their own.
//!
//! One stack serves all tests, one after the other, each with merchants and accounts of its own. It
//! takes half a minute to start and has to be stopped also when a test fails, so this binary has its
//! own `main` and prints what libtest would print. Names on the command line choose tests:
//! `cargo test --workspace --test it -- connect logs`.
#![expect(
    clippy::print_stdout,
    reason = "The result lines are for the programs that read libtest's."
)]

mod attacks;
mod bad_input;
mod browser;
mod configure;
mod connect;
mod hooks;
mod imports;
mod kill;
mod logs;
mod manage;
mod providers;
mod pull;
mod records;
mod refresh;
mod rotation;
mod store;
mod story;
mod webhooks;
mod world;
mod xero;

use futures::future::BoxFuture;
use local::stack::{Config, Stack, Trouble};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use world::World;

type Test = fn(Arc<World>) -> BoxFuture<'static, ()>;

/// In this order: secrets change before any connection needs them, the books of a killed run are read
/// last but one, and the logs of all at the end.
const TESTS: [(&str, Test); 17] = [
    ("store", |world| Box::pin(store::test(world))),
    ("configure", |world| Box::pin(configure::test(world))),
    ("bad_input", |world| Box::pin(bad_input::test(world))),
    ("connect", |world| Box::pin(connect::test(world))),
    ("attacks", |world| Box::pin(attacks::test(world))),
    ("imports", |world| Box::pin(imports::test(world))),
    ("manage", |world| Box::pin(manage::test(world))),
    ("records", |world| Box::pin(records::test(world))),
    ("story", |world| Box::pin(story::test(world))),
    ("xero", |world| Box::pin(xero::test(world))),
    ("webhooks", |world| Box::pin(webhooks::test(world))),
    ("hooks", |world| Box::pin(hooks::test(world))),
    ("pull", |world| Box::pin(pull::test(world))),
    ("rotation", |world| Box::pin(rotation::test(world))),
    ("refresh", |world| Box::pin(refresh::test(world))),
    ("kill", |world| Box::pin(kill::test(world))),
    ("logs", |world| Box::pin(logs::test(world))),
];

#[tokio::main]
async fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if wanted.iter().any(|word| word == "--list") {
        for (name, _) in TESTS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    // Options are libtest's, which other test binaries of the same run understand.
    let names: Vec<&String> = wanted
        .iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    let chosen: Vec<(&str, Test)> = TESTS
        .into_iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|part| name.contains(&***part)))
        .collect();
    println!("\nrunning {} tests", chosen.len());
    let began = Instant::now();
    let mut failed = Vec::new();
    if !chosen.is_empty() {
        match Config::scratch("it") {
            Ok(config) => failed = on_a_stack(config, &chosen).await,
            Err(trouble) => failed = none_ran(&chosen, &trouble),
        }
    }
    let result = if failed.is_empty() { "ok" } else { "FAILED" };
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {result}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        chosen.len() - failed.len(),
        failed.len(),
        TESTS.len() - chosen.len(),
        began.elapsed().as_secs_f64()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Starts the stack, runs the tests, stops the stack whatever came of them, and returns what failed.
async fn on_a_stack(config: Config, chosen: &[(&str, Test)]) -> Vec<String> {
    // An earlier run that was killed may have left its stack, at other ports.
    if let Err(trouble) = local::stack::down(&config).await {
        return none_ran(chosen, &trouble);
    }
    let interrupted = async {
        // Without the signal there is nothing to wait for, and the tests end by themselves.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let mut failed = tokio::select! {
        failed = start_and_run(config.clone(), chosen) => failed,
        () = interrupted => vec!["interrupted".to_owned()],
    };
    if let Err(trouble) = local::stack::down(&config).await {
        eprintln!("{trouble}");
        failed.push("the stack could not be stopped".to_owned());
    }
    // What could not be stopped is no test, so that the sums still agree.
    failed.truncate(chosen.len());
    failed
}

async fn start_and_run(config: Config, chosen: &[(&str, Test)]) -> Vec<String> {
    let world = match Stack::up(config).await {
        Ok(stack) => Arc::new(World::new(stack)),
        Err(trouble) => return none_ran(chosen, &trouble),
    };
    let mut failed = Vec::new();
    for (name, test) in chosen {
        let began = Instant::now();
        eprintln!("\n{name} begins");
        // A task of its own, so that a panic ends this test alone.
        let outcome = tokio::spawn(test(world.clone())).await;
        let result = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {result}");
        eprintln!("{name} took {:.1} s", began.elapsed().as_secs_f64());
        if outcome.is_err() {
            failed.push((*name).to_owned());
        }
    }
    failed
}

fn none_ran(chosen: &[(&str, Test)], trouble: &Trouble) -> Vec<String> {
    eprintln!("{trouble}");
    for (name, _) in chosen {
        println!("test {name} ... FAILED");
    }
    chosen.iter().map(|(name, _)| (*name).to_owned()).collect()
}
