//! `local`: the local stack from the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;
use local::stack::{self, Config, Follow, Stack, Trouble};
use local::{configure, show};

const USAGE: &str = "\
Usage: local <command>

  up                          start what is missing, deploy what has changed; prints every URL
  down                        stop everything
  status                      what runs where
  env                         the variables for a function that is started by hand, NAME=value
  logs [--function NAME] [--follow]
                              the functions' logs, as JSON lines
  demo [--data FILE.csv.gz] [--limit N]
                              tell the whole story on the running stack
  configure --file FILE [--stack NAME|local] [--force]
                              carry the platform's credentials at the providers from an environment
                              file into the stack's secrets, each checked with its provider first
  gateway --address A --api-id ID --upstream URL
                              the API at a stable address (started by `up`)
  standin PROVIDER --address A [--state DIR]
                              a provider's stand-in (started by `up`)
  standin --serve PROVIDER=A [--serve ...] [--state DIR]
                              several stand-ins in one process

ADDRESS_API, ADDRESS_RECEIVER, ADDRESS_AWS and one for each provider (ADDRESS_XERO, ADDRESS_HUBSPOT
and so on; host:port) move the parts;
CROSSDOCK_LOCAL_DIR moves the directory of logs and state (.local/stack).";

/// What the command line asks for.
enum Command {
    Up,
    Down,
    Status,
    Env,
    Logs(Follow),
    Demo {
        data: Option<PathBuf>,
        limit: Option<usize>,
    },
    Configure(configure::Options),
    Gateway {
        address: SocketAddr,
        api_id: String,
        upstream: String,
    },
    Standins {
        serve: Vec<(String, SocketAddr)>,
        state: Option<PathBuf>,
    },
    Help,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = match parse(lexopt::Parser::from_env()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(command).await {
        Ok(code) => code,
        Err(trouble) => {
            eprintln!("{trouble}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let name = match arguments.next()? {
        Some(Value(name)) => name.string()?,
        Some(Short('h') | Long("help")) | None => return Ok(Command::Help),
        Some(other) => return Err(other.unexpected()),
    };
    let mut provider: Option<String> = None;
    let mut serve: Vec<(String, SocketAddr)> = Vec::new();
    let (mut address, mut api_id, mut upstream, mut state) = (None, None, None, None);
    let (mut data, mut limit) = (None, None);
    let (mut file, mut stack, mut force) = (None, None, false);
    let mut follow = Follow::default();
    while let Some(argument) = arguments.next()? {
        match (name.as_str(), argument) {
            ("gateway" | "standin", Long("address")) => address = Some(arguments.value()?.parse()?),
            ("gateway", Long("api-id")) => api_id = Some(arguments.value()?.string()?),
            ("gateway", Long("upstream")) => upstream = Some(arguments.value()?.string()?),
            ("standin", Long("state")) => state = Some(arguments.value()?.into()),
            ("standin", Long("serve")) => serve.push(served(&arguments.value()?.string()?)?),
            ("standin", Value(word)) if provider.is_none() => provider = Some(word.string()?),
            ("demo", Long("data")) => data = Some(arguments.value()?.into()),
            ("demo", Long("limit")) => limit = Some(arguments.value()?.parse()?),
            ("configure", Long("file")) => file = Some(arguments.value()?.into()),
            ("configure", Long("stack")) => stack = Some(arguments.value()?.string()?),
            ("configure", Long("force")) => force = true,
            ("logs", Long("function")) => follow.function = Some(arguments.value()?.string()?),
            ("logs", Long("follow")) => follow.follow = true,
            (_, other) => return Err(other.unexpected()),
        }
    }
    let missing = |option: &str| lexopt::Error::from(format!("{name} needs {option}"));
    Ok(match name.as_str() {
        "up" => Command::Up,
        "down" => Command::Down,
        "status" => Command::Status,
        "env" => Command::Env,
        "logs" => Command::Logs(follow),
        "demo" => Command::Demo { data, limit },
        "configure" => Command::Configure(configure::Options {
            file: file.ok_or_else(|| missing("--file"))?,
            stack: stack.unwrap_or_else(|| "crossdock-production".to_owned()),
            force,
        }),
        "gateway" => Command::Gateway {
            address: address.ok_or_else(|| missing("--address"))?,
            api_id: api_id.ok_or_else(|| missing("--api-id"))?,
            upstream: upstream.ok_or_else(|| missing("--upstream"))?,
        },
        "standin" => {
            if let Some(provider) = provider {
                let address = address.ok_or_else(|| missing("--address"))?;
                serve.push((provider, address));
            }
            if serve.is_empty() {
                return Err(missing("a provider or --serve"));
            }
            Command::Standins { serve, state }
        }
        "help" => Command::Help,
        other => return Err(format!("there is no command {other}").into()),
    })
}

/// Reads `PROVIDER=ADDRESS`.
fn served(text: &str) -> Result<(String, SocketAddr), lexopt::Error> {
    let (provider, address) = text
        .split_once('=')
        .ok_or("--serve takes PROVIDER=ADDRESS")?;
    let address = address
        .parse()
        .map_err(|_| format!("{address} is not of the form 127.0.0.1:8802"))?;
    Ok((provider.to_owned(), address))
}

async fn run(command: Command) -> Result<ExitCode, Trouble> {
    match command {
        Command::Help => show(USAGE),
        Command::Up => describe(&Stack::up(Config::from_environment()?).await?),
        Command::Down => {
            stack::down(&Config::from_environment()?).await?;
            show("Nothing of the stack runs.");
        }
        Command::Status => {
            let (all, lines) = stack::status(&Config::from_environment()?)?;
            show(&lines.join("\n"));
            return Ok(if all {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::Env => {
            let stack = Stack::connect(Config::from_environment()?).await?;
            for (name, value) in stack.environment().await? {
                show(&format!("{name}={value}"));
            }
        }
        Command::Logs(options) => stack::follow(&Config::from_environment()?, options).await?,
        Command::Demo { data, limit } => {
            let stack = Stack::connect(Config::from_environment()?).await?;
            let options = local::demo::Options {
                data,
                limit,
                platform_key: Some(stack.platform_key),
            };
            return Ok(local::demo::run(options).await);
        }
        Command::Configure(options) => {
            return Ok(if configure::run(&options).await? {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::Gateway {
            address,
            api_id,
            upstream,
        } => stack::gateway::serve(address, &api_id, &upstream).await?,
        Command::Standins { serve, state } => {
            let stopped = local::standins::serve(serve, state).await;
            stopped.map_err(|error| Trouble::plain(format!("The stand-ins stopped: {error}")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(stack: &Stack) {
    let urls = &stack.urls;
    show(&format!("Public API         {}", urls.api));
    for provider in crossdock::providers::PROVIDERS {
        let manifest = provider.manifest();
        let (title, url) = (manifest.title, urls.provider(manifest.name));
        show(&format!("{title:<18} {url} (stand-in)"));
    }
    show(&format!("Sample receiver    {}", urls.receiver));
    show(&format!(
        "AWS                {} (AWS_ENDPOINT_URL; region us-east-1, key and secret `test`)",
        urls.aws
    ));
    show(&format!("Platform key       {}", stack.platform_key));
    show(&format!(
        "Functions' logs    make logs; all other logs are in {}",
        stack.config.directory.join("logs").display()
    ));
}
