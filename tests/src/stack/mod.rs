//! The local stack: the real template and the real binaries on an emulated AWS, the provider
//! stand-ins, a sample developer's receiver and a gateway with a stable address.
//!
//! Everything is derived from a [`Config`], so several stacks can stand side by side. What runs is
//! recorded in the stack's directory; `up` compares the record with what should run and repairs the
//! difference, so it may be called at any time, also after it was interrupted.

pub mod aws;
pub mod clock;
mod config;
mod deploy;
pub mod gateway;
pub mod host;
mod logs;
mod ports;
mod process;
pub mod proxy;
mod trouble;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub use config::{Addresses, Config, Urls};
pub use logs::Follow;
pub use trouble::Trouble;

use crossdock::oauth::redirect_uri;
use crossdock::providers::PROVIDERS;
use serde_json::json;

use crate::standins::oauth::SENDGRID_PUBLIC_KEY;

use aws::Aws;
use process::{Service, State};

/// How long a service may take to answer after it was started.
const START_SECONDS_MAX: u64 = 60;

/// The app that every stand-in knows. It is no secret: it opens nothing but a stand-in.
const CLIENT_ID: &str = "standin-client";
/// With it the stand-ins sign their webhooks.
const WEBHOOK_KEY: &str = "standin-webhook-key";
const CLIENT_SECRET: &str = "standin-secret";

/// A stack that is up.
#[derive(Debug)]
pub struct Stack {
    pub config: Config,
    pub urls: Urls,
    /// The key with which the commerce backend calls the API.
    pub platform_key: String,
    /// The outputs of the deployed template: table names, queue addresses, secret ids.
    pub outputs: BTreeMap<String, String>,
}

/// How the names of the local stack's functions begin.
const FUNCTIONS: &str = "crossdock-local-";

impl Stack {
    /// Starts whatever is missing, deploys whatever has changed, and waits until the API answers.
    pub async fn up(config: Config) -> Result<Self, Trouble> {
        let began = Instant::now();
        config.prepare()?;
        let _turn = config.take_turn()?;
        if config.build {
            deploy::build(&config).await?;
        }
        deploy::lay_out_functions(&config).await?;

        let aws = Aws::new(&config.urls().aws);
        let emulator = emulator(&config);
        let mut fresh = !emulator.is_well().await?;
        if !fresh && deploy::is_wedged(&aws).await? {
            say("The last deployment was interrupted: starting the local AWS anew.");
            fresh = true;
        }
        if fresh {
            // The emulated AWS keeps everything in memory. Books and deliveries of an earlier stack
            // would know orders that the new one has never heard of, so they go with it.
            stop_all(&config).await?;
            config.forget_state()?;
        }
        emulator.start().await?;
        standins(&config)?.start().await?;
        receiver(&config).start().await?;

        deploy::deploy(&config, &aws).await?;
        let outputs = deploy::outputs(&aws).await?.unwrap_or_default();
        let stack = Self::from_outputs(config, outputs, &aws).await?;
        stack.introduce(&aws).await?;
        gateway_service(&stack.config, stack.output("ApiId")?)
            .start()
            .await?;
        say(&format!(
            "The stack is up after {:.1} s.",
            began.elapsed().as_secs_f64()
        ));
        Ok(stack)
    }

    /// The stack that an earlier `up` left running.
    pub async fn connect(config: Config) -> Result<Self, Trouble> {
        check_up(&config)?;
        let aws = Aws::new(&config.urls().aws);
        let outputs = deploy::outputs(&aws).await?.ok_or_else(not_up)?;
        Self::from_outputs(config, outputs, &aws).await
    }

    async fn from_outputs(
        config: Config,
        outputs: BTreeMap<String, String>,
        aws: &Aws,
    ) -> Result<Self, Trouble> {
        let mut stack = Self {
            urls: config.urls(),
            config,
            platform_key: String::new(),
            outputs,
        };
        let secret = aws.secret(stack.output("SecretPlatform")?).await?;
        stack.platform_key = secret["platform_key"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(stack)
    }

    /// Tells both sides of each provider's app about each other: the functions get its id and secret
    /// and where the provider is, the stand-in learns where it may send a merchant back to.
    async fn introduce(&self, aws: &Aws) -> Result<(), Trouble> {
        let prefix = self.output("SecretProviderPrefix")?;
        for provider in PROVIDERS {
            let manifest = provider.manifest();
            let url = self.urls.provider(manifest.name);
            let mut secret = json!({ "environment": url });
            for credential in manifest.credentials {
                secret[credential.member] = json!(match credential.member {
                    "client_id" => CLIENT_ID,
                    "webhook_key" if manifest.name == "sendgrid" => SENDGRID_PUBLIC_KEY,
                    member if member.starts_with("webhook_") => WEBHOOK_KEY,
                    _ if credential.required => CLIENT_SECRET,
                    _ => continue,
                });
            }
            let id = format!("{prefix}{}", manifest.name);
            if aws.secret(&id).await? != secret {
                aws.put_secret(&id, &secret).await?;
            }
            if manifest.code_flow().is_some() {
                self.register(manifest.name, url).await?;
            }
            // The one that counts its calls, as its vendor does.
            if manifest.name == "quickbooks" {
                let limits = format!("{url}/_control/limits");
                self.control(manifest.name, &limits, &json!({"enabled": true}))
                    .await?;
            }
        }
        Ok(())
    }

    async fn register(&self, provider: &str, url: &str) -> Result<(), Trouble> {
        let body = json!({
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "redirect_uris": [redirect_uri(&self.urls.api, provider)],
        });
        self.control(provider, &format!("{url}/_control/clients"), &body)
            .await
    }

    async fn control(
        &self,
        provider: &str,
        url: &str,
        body: &serde_json::Value,
    ) -> Result<(), Trouble> {
        let answer = aws::http()
            .post(url)
            .body(body.to_string())
            .header("content-type", "application/json")
            .send()
            .await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Trouble::plain(format!(
                "The stand-in of {provider} answered {} to {url}.",
                answer.status()
            ))),
            Err(error) => Err(Trouble::plain(format!(
                "The stand-in of {provider} does not answer at {url}: {error}"
            ))),
        }
    }

    /// Where the webhooks of `provider` are taken.
    pub fn hooks_url(&self, provider: &str) -> String {
        redirect_uri(&self.urls.api, provider).replace("/oauth/cb/", "/hooks/")
    }

    /// An output of the template.
    pub fn output(&self, name: &str) -> Result<&str, Trouble> {
        match self.outputs.get(name) {
            Some(value) => Ok(value),
            None => Err(Trouble::new(
                format!("The deployed template has no output {name}."),
                "Begin anew with `make down` and `make up`.",
            )),
        }
    }

    /// Stops everything that was started and leaves no process.
    pub async fn down(&self) -> Result<(), Trouble> {
        down(&self.config).await
    }

    /// The processes that run one function at this moment.
    pub fn function_pids(&self, function: &str) -> Vec<i32> {
        process::function_pids(&self.config, Some(function))
    }

    /// Kills the processes of one function, or of all, as a crash would. Whatever is called next starts
    /// anew, with nothing in its memory.
    pub fn kill_functions(&self, function: Option<&str>) {
        for pid in process::function_pids(&self.config, function) {
            process::kill(pid);
        }
    }

    /// How soon a message returns to its queue when the function that took it has died. Tests of
    /// crashes set it low, since each crash costs them that long.
    pub async fn redeliver_after(&self, seconds: u32) -> Result<(), Trouble> {
        let aws = Aws::new(&self.urls.aws);
        for (name, url) in &self.outputs {
            if name.starts_with("Queue") {
                aws.set_visibility(url, seconds).await?;
            }
        }
        Ok(())
    }

    /// The environment in which a function that is started by hand works on this stack: what the
    /// deployed functions have, and what leads an SDK to the local AWS.
    pub async fn environment(&self) -> Result<BTreeMap<String, String>, Trouble> {
        let mut variables = Aws::new(&self.urls.aws).variables(FUNCTIONS).await?;
        for (name, value) in [
            ("AWS_ENDPOINT_URL", self.urls.aws.as_str()),
            ("AWS_REGION", aws::REGION),
            ("AWS_ACCESS_KEY_ID", aws::ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", aws::ACCESS_KEY),
        ] {
            variables.insert(name.to_owned(), value.to_owned());
        }
        Ok(variables)
    }

    /// What functions have logged so far, oldest line first.
    pub async fn logs(&self, function: Option<&str>) -> Result<Vec<serde_json::Value>, Trouble> {
        logs::all(&self.config, function).await
    }
}

/// Stops everything that was started. The functions' logs, which the emulated AWS keeps in memory,
/// are written to the stack's directory first.
pub async fn down(config: &Config) -> Result<(), Trouble> {
    config.prepare()?;
    let _turn = config.take_turn()?;
    if emulator(config).state()? == State::Running {
        match tokio::time::timeout(Duration::from_secs(20), logs::put_away(config)).await {
            Ok(Ok(())) => {}
            Ok(Err(trouble)) => say(&format!(
                "The functions' logs could not be put away: {trouble}"
            )),
            Err(_) => say("The functions' logs could not be put away within 20 s."),
        }
    }
    stop_all(config).await?;
    deploy::forget(config)
}

async fn stop_all(config: &Config) -> Result<(), Trouble> {
    // The gateway first, so that nothing new comes in.
    for service in [
        gateway_service(config, ""),
        emulator(config),
        receiver(config),
        standins(config)?,
    ] {
        service.stop().await?;
    }
    process::end_leftovers(config);
    process::check_nothing_left(config).await
}

/// One line for each part: whether it runs, where, and what it writes.
pub fn status(config: &Config) -> Result<(bool, Vec<String>), Trouble> {
    let mut lines = Vec::new();
    let mut all = true;
    for service in [
        emulator(config),
        standins(config)?,
        receiver(config),
        gateway_service(config, ""),
    ] {
        let state = service.state()?;
        all &= state == State::Running;
        lines.push(format!(
            "{:<12} {:<9} http://{:<16} {}",
            service.name,
            state,
            service.address,
            service.log().display()
        ));
    }
    Ok((all, lines))
}

fn not_up() -> Trouble {
    Trouble::new("The stack is not up.", "Start it with `make up`.")
}

fn check_up(config: &Config) -> Result<(), Trouble> {
    match emulator(config).state()? {
        State::Running => Ok(()),
        _ => Err(not_up()),
    }
}

/// Follows the functions' logs.
pub async fn follow(config: &Config, options: Follow) -> Result<(), Trouble> {
    check_up(config)?;
    logs::follow(config, options).await
}

/// The emulated AWS. It runs the functions as its own child processes.
fn emulator(config: &Config) -> Service {
    let venv = config.root.join(".local/venv-aws/bin");
    let address = config.addresses.aws;
    Service::new(config, "aws", "ADDRESS_AWS", address, venv.join("python3"))
        .args([&config
            .root
            .join("tests/stack/emulator.py")
            .display()
            .to_string()])
        .env("GATEWAY_PORT", address.port().to_string())
        .env("BIND_HOST", address.ip().to_string())
        // Functions inherit it: this is how their SDK finds the emulator.
        .env("AWS_ENDPOINT_URL", &config.urls().aws)
        .env("AWS_DEFAULT_REGION", aws::REGION)
        // Unpacked functions go there, and so belong to this stack alone.
        .env("TMPDIR", config.directory.join("tmp").display().to_string())
        .env("LOG_LEVEL", "INFO")
        .health("/_ministack/ready")
        .needs(venv.join("ministack"), "make up")
}

/// All stand-ins, in one process.
fn standins(config: &Config) -> Result<Service, Trouble> {
    let mut providers = config.addresses.providers.iter();
    let Some((name, address)) = providers.next() else {
        return Err(Trouble::plain("There is no provider.".to_owned()));
    };
    let program = config.program.clone();
    let mut service = Service::new(
        config,
        "standins",
        &config::variable(name),
        *address,
        program,
    )
    .args(["standin", "--serve", &format!("{name}={address}")]);
    for (name, address) in providers {
        service = service
            .args(["--serve", &format!("{name}={address}")])
            .also(config::variable(name), *address);
    }
    Ok(service
        .args(["--state"])
        .arg(config.state("standins").display().to_string()))
}

/// A developer's endpoint, written in Python on purpose: it verifies signatures with the published
/// library and shares no code with what it checks.
fn receiver(config: &Config) -> Service {
    let python = config.root.join(".local/venv-sdk/bin/python");
    let script = config.root.join("tests/receiver/receiver.py");
    Service::new(
        config,
        "receiver",
        "ADDRESS_RECEIVER",
        config.addresses.receiver,
        python.clone(),
    )
    .arg(script.display().to_string())
    .args([
        "--address",
        &config.addresses.receiver.to_string(),
        "--state",
    ])
    .arg(config.state("receiver").display().to_string())
    .watches(script)
    .needs(python, "make up")
}

fn gateway_service(config: &Config, api: &str) -> Service {
    Service::new(
        config,
        "gateway",
        "ADDRESS_API",
        config.addresses.api,
        config.program.clone(),
    )
    .args([
        "gateway",
        "--address",
        &config.addresses.api.to_string(),
        "--api-id",
        api,
    ])
    .args(["--upstream", &config.urls().aws])
    .health("/health")
}

/// One line of progress for the person who waits.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
