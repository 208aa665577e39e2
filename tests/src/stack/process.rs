//! Processes that outlive the command that started them.
//!
//! Each is the leader of a process group of its own, and its record holds the moment it was started.
//! A process is ended only if number and moment agree, so a number that the system has given to
//! somebody else's process in the meantime does no harm.

use std::fmt;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill as send, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{Config, START_SECONDS_MAX, Trouble, aws, ports, say};

/// How long a process may take to end after it was asked to.
const STOP_SECONDS_MAX: u64 = 8;

/// What is written down about a process that was started.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
struct Record {
    pid: i32,
    /// Clock ticks from the machine's start to the process's, as /proc/<pid>/stat has them.
    started: u64,
    command: Vec<String>,
    address: SocketAddr,
    /// When the files that the process was started from were last written.
    stamp: Vec<u128>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    Running,
    /// It runs, but was started for another address.
    Elsewhere,
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Running => "running",
            Self::Elsewhere => "elsewhere",
            Self::Stopped => "stopped",
        })
    }
}

/// A part of the stack: how to start it, and how to see that it works.
pub(crate) struct Service {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// The variable that moves it elsewhere.
    variable: String,
    /// Further addresses of the same process, each with its variable.
    also: Vec<(String, SocketAddr)>,
    command: Vec<String>,
    environment: Vec<(&'static str, String)>,
    health: Option<&'static str>,
    needs: Option<(PathBuf, &'static str)>,
    watched: Vec<PathBuf>,
    directory: PathBuf,
    root: PathBuf,
}

impl Service {
    pub(crate) fn new(
        config: &Config,
        name: &'static str,
        variable: &str,
        address: SocketAddr,
        program: PathBuf,
    ) -> Self {
        Self {
            name,
            address,
            variable: variable.to_owned(),
            also: Vec::new(),
            command: vec![program.display().to_string()],
            environment: Vec::new(),
            health: None,
            needs: None,
            watched: vec![program],
            directory: config.directory.clone(),
            root: config.root.clone(),
        }
    }

    pub(crate) fn arg(mut self, value: String) -> Self {
        self.command.push(value);
        self
    }

    pub(crate) fn args<const N: usize>(mut self, values: [&str; N]) -> Self {
        self.command.extend(values.map(str::to_owned));
        self
    }

    pub(crate) fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// One more address that the process listens on.
    pub(crate) fn also(mut self, variable: String, address: SocketAddr) -> Self {
        self.also.push((variable, address));
        self
    }

    /// All addresses with their variables.
    fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        let also = self.also.iter();
        std::iter::once((&*self.variable, self.address))
            .chain(also.map(|(variable, address)| (&**variable, *address)))
    }

    /// A path that answers with success once the service works. Without one, a connection suffices.
    pub(crate) fn health(mut self, path: &'static str) -> Self {
        self.health = Some(path);
        self
    }

    /// A file that set-up makes, and the command that makes it.
    pub(crate) fn needs(mut self, file: PathBuf, command: &'static str) -> Self {
        self.needs = Some((file, command));
        self
    }

    /// A file whose change asks for a restart.
    pub(crate) fn watches(mut self, file: PathBuf) -> Self {
        self.watched.push(file);
        self
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.directory
            .join("logs")
            .join(format!("{}.log", self.name))
    }

    fn record_path(&self) -> PathBuf {
        self.directory
            .join("pids")
            .join(format!("{}.json", self.name))
    }

    fn record(&self) -> Result<Option<Record>, Trouble> {
        match fs::read(self.record_path()) {
            // A record that was cut short is as good as none: its process is found by its port.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Trouble::io(
                format!("Cannot read {}", self.record_path().display()),
                &error,
            )),
        }
    }

    pub(crate) fn state(&self) -> Result<State, Trouble> {
        Ok(match self.record()? {
            Some(record) if started(record.pid) != Some(record.started) => State::Stopped,
            Some(record) if record.address != self.address => State::Elsewhere,
            Some(_) => State::Running,
            None => State::Stopped,
        })
    }

    fn stamp(&self) -> Vec<u128> {
        self.watched.iter().map(|path| modified(path)).collect()
    }

    /// Whether what runs is what would be started now.
    fn is_current(&self) -> Result<bool, Trouble> {
        Ok(self.record()?.is_some_and(|record| {
            record.command == self.command
                && record.address == self.address
                && record.stamp == self.stamp()
        }))
    }

    /// Whether the service runs as it should and answers.
    pub(crate) async fn is_well(&self) -> Result<bool, Trouble> {
        Ok(self.state()? == State::Running && self.is_current()? && self.answers().await)
    }

    /// Makes sure that the service runs as it should now, and waits until it answers.
    pub(crate) async fn start(&self) -> Result<(), Trouble> {
        if let Some((file, command)) = &self.needs
            && !file.exists()
        {
            return Err(Trouble::new(
                format!("{} is missing.", file.display()),
                format!("Run `{command}`, which sets it up."),
            ));
        }
        if self.is_well().await? {
            return Ok(());
        }
        if self.state()? != State::Stopped {
            let same = self.is_current()?;
            say(&format!(
                "Restarting {}: {}.",
                self.name,
                if same {
                    "it does not answer"
                } else {
                    "it has changed"
                }
            ));
            self.stop().await?;
        }
        self.wait_for_ports().await?;
        say(&format!(
            "Starting {} at http://{}.",
            self.name, self.address
        ));
        let log = File::create(self.log()).map_err(|error| {
            Trouble::io(format!("Cannot write {}", self.log().display()), &error)
        })?;
        let errors = log
            .try_clone()
            .map_err(|error| Trouble::io("Cannot share a log file", &error))?;
        // The emulator leaves a folder behind for each function.
        let scratch = self.directory.join("tmp");
        std::fs::create_dir_all(&scratch)
            .map_err(|error| Trouble::io("Cannot make a folder for scratch files", &error))?;
        let mut command = tokio::process::Command::new(&self.command[0]);
        command
            .args(&self.command[1..])
            .current_dir(&self.root)
            // Nothing of the caller's environment reaches a service, or through it a function: no
            // AWS profile, no log level, no proxy.
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.directory)
            .env("TMPDIR", &scratch)
            .env("LANG", "C.UTF-8")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        let mut child = command
            .spawn()
            .map_err(|error| Trouble::io(format!("Cannot start {}", self.command[0]), &error))?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap_or_default();
        let record = Record {
            pid,
            started: started(pid).unwrap_or_default(),
            command: self.command.clone(),
            address: self.address,
            stamp: self.stamp(),
        };
        let json =
            serde_json::to_vec(&record).map_err(|error| Trouble::plain(error.to_string()))?;
        fs::write(self.record_path(), json).map_err(|error| {
            Trouble::io(
                format!("Cannot write {}", self.record_path().display()),
                &error,
            )
        })?;

        let began = Instant::now();
        let mut told = false;
        while !self.answers().await {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(Trouble::new(
                    format!(
                        "{} ended at once ({status}):\n{}",
                        self.name,
                        self.last_words()
                    ),
                    format!("Its log is {}.", self.log().display()),
                ));
            }
            if began.elapsed() > Duration::from_secs(START_SECONDS_MAX) {
                return Err(Trouble::new(
                    format!(
                        "{} does not answer at {} after {START_SECONDS_MAX} s.",
                        self.name,
                        self.probe()
                    ),
                    format!(
                        "Its log is {}:\n{}",
                        self.log().display(),
                        self.last_words()
                    ),
                ));
            }
            if !told && began.elapsed() > Duration::from_secs(3) {
                say(&format!(
                    "Waiting for {} (at most {START_SECONDS_MAX} s).",
                    self.probe()
                ));
                told = true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn probe(&self) -> String {
        format!("http://{}{}", self.address, self.health.unwrap_or_default())
    }

    async fn answers(&self) -> bool {
        let limit = Duration::from_secs(10);
        match self.health {
            Some(_) => aws::http()
                .get(self.probe())
                .timeout(limit)
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success()),
            None => {
                for (_, address) in self.addresses() {
                    let connect = tokio::net::TcpStream::connect(address);
                    if !matches!(tokio::time::timeout(limit, connect).await, Ok(Ok(_))) {
                        return false;
                    }
                }
                true
            }
        }
    }

    async fn wait_for_ports(&self) -> Result<(), Trouble> {
        for (variable, address) in self.addresses() {
            self.wait_for_port(variable, address).await?;
        }
        Ok(())
    }

    /// The port is free, or becomes so within seconds after a stop; else a stranger has it.
    async fn wait_for_port(&self, variable: &str, address: SocketAddr) -> Result<(), Trouble> {
        let began = Instant::now();
        while !ports::is_free(address) {
            if began.elapsed() > Duration::from_secs(2) {
                let holder = match ports::listener(address) {
                    Some(pid) => format!("process {pid} ({})", command_line(pid)),
                    None => "a process that is not ours to see".to_owned(),
                };
                return Err(Trouble::new(
                    format!("Port {} is taken by {holder}.", address.port()),
                    format!(
                        "End it, or move {} with {variable}=127.0.0.1:<port>.",
                        self.name
                    ),
                ));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let text = fs::read(self.log())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Ends the service and every process of its group: first by asking, then by force.
    pub(crate) async fn stop(&self) -> Result<(), Trouble> {
        let Some(record) = self.record()? else {
            return Ok(());
        };
        let group = Pid::from_raw(record.pid);
        let ours = || started(record.pid) == Some(record.started);
        if ours() {
            say(&format!("Stopping {}.", self.name));
            // Only the leader is asked: it ends its own children in order.
            let _ = send(group, Signal::SIGTERM);
            let began = Instant::now();
            while ours() && began.elapsed() < Duration::from_secs(STOP_SECONDS_MAX) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        // The number of a group stays reserved while any member lives, but a group without members
        // may be anybody's by now; members are recognised by their environment or their leader.
        if ours() || group_is_ours(&self.directory, record.pid) {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = fs::remove_file(self.record_path());
        Ok(())
    }
}

/// Kills one process.
pub(crate) fn kill(pid: i32) {
    // It may have ended by itself in the meantime, which is what was wanted.
    let _ = send(Pid::from_raw(pid), Signal::SIGKILL);
}

/// When a process was started; nothing if there is none, or only its remains.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold spaces and brackets itself; the fields follow the last one.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// The process group of a process.
fn group(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(2)?
        .parse()
        .ok()
}

fn command_line(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line)
        .replace('\0', " ")
        .trim()
        .chars()
        .take(120)
        .collect()
}

fn modified(path: &Path) -> u128 {
    let time = fs::metadata(path).and_then(|metadata| metadata.modified());
    time.ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_nanos())
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether a process was started from this stack's directory, by the home that all of them get.
fn is_ours(directory: &Path, pid: i32) -> bool {
    let home = format!("HOME={}", directory.display());
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    started(pid).is_some()
        && environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == home.as_bytes())
}

fn group_is_ours(directory: &Path, leader: i32) -> bool {
    processes().any(|pid| group(pid) == Some(leader) && is_ours(directory, pid))
}

/// The processes that run one function, or any.
pub(crate) fn function_pids(config: &Config, function: Option<&str>) -> Vec<i32> {
    let prefix = "AWS_LAMBDA_FUNCTION_NAME=crossdock-local-";
    let runs = |variable: &[u8]| {
        let name = variable.strip_prefix(prefix.as_bytes());
        name.is_some_and(|name| function.is_none_or(|wanted| name == wanted.as_bytes()))
    };
    processes()
        .filter(|pid| is_ours(&config.directory, *pid))
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(runs)
        })
        .collect()
}

/// Kills what an interrupted run has left without a record.
pub(crate) fn end_leftovers(config: &Config) {
    for pid in processes().filter(|pid| is_ours(&config.directory, *pid)) {
        kill(pid);
    }
}

/// Kills deployments that an interrupted run has left going.
pub(crate) fn end_deployments(config: &Config) {
    let deployments = processes().filter(|pid| is_ours(&config.directory, *pid));
    for pid in deployments.filter(|pid| command_line(*pid).contains("sam deploy")) {
        kill(pid);
    }
}

/// After a stop no process of the stack may be left.
pub(crate) async fn check_nothing_left(config: &Config) -> Result<(), Trouble> {
    let began = Instant::now();
    while processes().any(|pid| is_ours(&config.directory, pid))
        && began.elapsed() < Duration::from_secs(2)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left: Vec<String> = processes()
        .filter(|pid| is_ours(&config.directory, *pid))
        .map(|pid| format!("{pid} ({})", command_line(pid)))
        .collect();
    if left.is_empty() {
        return Ok(());
    }
    Err(Trouble::new(
        format!(
            "These processes of the stack are left: {}.",
            left.join(", ")
        ),
        "End them by their number.",
    ))
}
