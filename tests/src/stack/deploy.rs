//! From binaries to a deployed template.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::aws::{ACCESS_KEY, Aws, REGION, STACK};
use super::{Config, Trouble, process, say};

/// The bucket that `samconfig.toml` names for the local environment.
const BUCKET: &str = "crossdock-deploy";

/// The names of the functions: one binary each.
pub(crate) fn functions(config: &Config) -> Result<Vec<String>, Trouble> {
    let folder = config.root.join("functions/src/bin");
    let trouble =
        |error: std::io::Error| Trouble::io(format!("Cannot read {}", folder.display()), &error);
    let mut names: Vec<String> = fs::read_dir(&folder)
        .map_err(trouble)?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Builds every program of the workspace. All at once, because the set of packages decides which
/// features of a dependency are built, and one set means one copy of each.
pub(crate) async fn build(config: &Config) -> Result<(), Trouble> {
    let mut command = Command::new("cargo");
    command
        .args(["build", "--quiet", "--workspace", "--bins"])
        .current_dir(&config.root);
    let status = command
        .status()
        .await
        .map_err(|error| Trouble::io("Cannot run cargo", &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Trouble::plain(
        "The build failed; what the compiler says stands above.",
    ))
}

/// Lays each function's binary where the template looks for it, as `cargo lambda build` does. Debug
/// information stays behind: it is most of the size, and a zip of it is most of the time.
pub(crate) async fn lay_out_functions(config: &Config) -> Result<(), Trouble> {
    let binaries = config
        .program
        .parent()
        .map(PathBuf::from)
        .unwrap_or_default();
    for name in functions(config)? {
        let binary = binaries.join(&name);
        let folder = config.root.join("target/lambda").join(&name);
        let bootstrap = folder.join("bootstrap");
        let built = fs::metadata(&binary)
            .and_then(|metadata| metadata.modified())
            .map_err(|error| {
                Trouble::new(
                    format!("{}: {error}", binary.display()),
                    "Build it with `cargo build --workspace --bins`.",
                )
            })?;
        // The copy gets the binary's own time, so an equal time means an equal content, and a copy
        // for another architecture, which `make build` puts there, does not pass for ours.
        if fs::metadata(&bootstrap)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|time| time == built)
        {
            continue;
        }
        let trouble = |error: std::io::Error| {
            Trouble::io(format!("Cannot write {}", bootstrap.display()), &error)
        };
        fs::create_dir_all(&folder).map_err(trouble)?;
        let partial = folder.join("bootstrap.partial");
        let strip = Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .args([&partial, &binary])
            .status()
            .await;
        if !strip.is_ok_and(|status| status.success()) {
            return Err(Trouble::new(
                format!("`strip` could not read {}.", binary.display()),
                "It comes with the C compiler (Debian's package binutils).",
            ));
        }
        let file = fs::File::options()
            .append(true)
            .open(&partial)
            .map_err(trouble)?;
        file.set_modified(built).map_err(trouble)?;
        drop(file);
        fs::rename(&partial, &bootstrap).map_err(trouble)?;
    }
    Ok(())
}

/// What the template is deployed with. `samconfig.toml` has the same for the default addresses.
fn parameters(config: &Config) -> Vec<String> {
    let urls = config.urls();
    vec![
        "Environment=local".to_owned(),
        format!(
            "Architecture={}",
            std::env::consts::ARCH.replace("aarch64", "arm64")
        ),
        format!("PublicUrl={}", urls.api),
        format!("ReturnUrls={}/connected", urls.receiver),
        "LogLevel=INFO".to_owned(),
    ]
}

fn digest(config: &Config) -> Result<String, Trouble> {
    let mut hash = Sha256::new();
    for file in ["infra/template.yaml", "samconfig.toml"] {
        let path = config.root.join(file);
        hash.update(
            fs::read(&path)
                .map_err(|error| Trouble::io(format!("Cannot read {}", path.display()), &error))?,
        );
    }
    hash.update(parameters(config).join(" "));
    for name in functions(config)? {
        let path = config
            .root
            .join("target/lambda")
            .join(&name)
            .join("bootstrap");
        let metadata = fs::metadata(&path)
            .map_err(|error| Trouble::io(format!("Cannot read {}", path.display()), &error))?;
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        hash.update(format!(
            "{name} {} {}",
            metadata.len(),
            modified.unwrap_or_default().as_nanos()
        ));
    }
    Ok(hash
        .finalize()
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        }))
}

fn record(config: &Config) -> PathBuf {
    config.directory.join("deployed")
}

/// Forgets what was deployed, because the place it was deployed to is gone.
pub(crate) fn forget(config: &Config) -> Result<(), Trouble> {
    match fs::remove_file(record(config)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Trouble::io("Cannot forget a deployment", &error))
        }
        _ => Ok(()),
    }
}

/// Whether an earlier deployment stopped half-way and cannot be built upon.
pub(crate) async fn is_wedged(aws: &Aws) -> Result<bool, Trouble> {
    let began = Instant::now();
    loop {
        match aws.stack(STACK).await? {
            None => return Ok(false),
            Some(stack)
                if matches!(stack.status.as_str(), "CREATE_COMPLETE" | "UPDATE_COMPLETE") =>
            {
                return Ok(false);
            }
            // The emulator may still be at it, if only the tool was interrupted.
            Some(stack)
                if stack.status.ends_with("IN_PROGRESS")
                    && began.elapsed() < Duration::from_secs(20) =>
            {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            Some(_) => return Ok(true),
        }
    }
}

/// The outputs of the deployed template, if it is deployed.
pub(crate) async fn outputs(aws: &Aws) -> Result<Option<BTreeMap<String, String>>, Trouble> {
    Ok(aws.stack(STACK).await?.map(|stack| stack.outputs))
}

/// Deploys the template, unless it, its parameters and every binary are those of the last time.
pub(crate) async fn deploy(config: &Config, aws: &Aws) -> Result<(), Trouble> {
    let digest = digest(config)?;
    let unchanged = fs::read_to_string(record(config)).is_ok_and(|last| last == digest);
    if unchanged && aws.stack(STACK).await?.is_some() {
        return Ok(());
    }
    forget(config)?;
    // A deployment whose `local` was killed goes on by itself, and two at once end in a tangle.
    process::end_deployments(config);
    let began = Instant::now();
    say("Deploying infra/template.yaml with sam (about 20 s).");
    aws.make_bucket(BUCKET).await?;
    let log = config.logs().join("deploy.log");
    let file = fs::File::create(&log)
        .map_err(|error| Trouble::io(format!("Cannot write {}", log.display()), &error))?;
    let errors = file
        .try_clone()
        .map_err(|error| Trouble::io("Cannot share a log file", &error))?;
    let mut command = Command::new(config.root.join(".local/venv-tools/bin/sam"));
    command
        .args(["deploy", "--config-env", "local", "--parameter-overrides"])
        .args(parameters(config))
        .current_dir(&config.root)
        // An operator's own profile and keys must not reach this deployment, nor this deployment a
        // real account.
        .env_remove("AWS_PROFILE")
        .env_remove("AWS_SESSION_TOKEN")
        .env("HOME", &config.directory)
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_ENDPOINT_URL", config.urls().aws)
        .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        .env("AWS_SECRET_ACCESS_KEY", ACCESS_KEY)
        .env("AWS_DEFAULT_REGION", REGION)
        .env("SAM_CLI_TELEMETRY", "0")
        .env("SAM_CLI_POLL_DELAY", "1")
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .kill_on_drop(true);
    let status = command.status().await.map_err(|error| {
        Trouble::new(
            format!("Cannot run sam: {error}"),
            "Run `make up`, which sets it up.",
        )
    })?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        return Err(Trouble::new(
            format!("sam deploy failed ({status}):\n{tail}"),
            format!("All of it is in {}.", log.display()),
        ));
    }
    fs::write(record(config), digest)
        .map_err(|error| Trouble::io("Cannot record the deployment", &error))?;
    say(&format!(
        "Deployed in {:.1} s.",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}
