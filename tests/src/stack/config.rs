//! Where a stack keeps its things and where it listens.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::Trouble;
use crate::standins::names;

/// Where each part listens; always on the loopback interface.
#[derive(Clone, Debug)]
pub struct Addresses {
    pub api: SocketAddr,
    /// The stand-ins, by provider, in the order of the registry.
    pub providers: Vec<(&'static str, SocketAddr)>,
    pub receiver: SocketAddr,
    pub aws: SocketAddr,
}

impl Urls {
    /// Where the stand-in of a provider is.
    pub fn provider(&self, name: &str) -> &str {
        self.providers.get(name).map_or("", String::as_str)
    }
}

/// The addresses as others write them.
#[derive(Clone, Debug)]
pub struct Urls {
    pub api: String,
    /// The stand-ins, by provider.
    pub providers: BTreeMap<&'static str, String>,
    pub receiver: String,
    /// The endpoint for AWS tools and SDKs (region `us-east-1`, any access key).
    pub aws: String,
}

/// One stack: its addresses, its directory, and the checkout that it is built from.
#[derive(Clone, Debug)]
pub struct Config {
    pub addresses: Addresses,
    /// Logs, process ids and the state of stand-ins.
    pub directory: PathBuf,
    /// The checkout.
    pub root: PathBuf,
    /// The program `local`, which also is the gateway and the stand-ins.
    pub program: PathBuf,
    /// Whether `up` builds the functions first.
    pub build: bool,
}

impl Config {
    /// The stack that the environment asks for: `ADDRESS_API`, `ADDRESS_RECEIVER`, `ADDRESS_AWS` and
    /// for each provider `ADDRESS_<PROVIDER>` move its parts, `CROSSDOCK_LOCAL_DIR` its directory.
    pub fn from_environment() -> Result<Self, Trouble> {
        let root = checkout()?;
        let directory = match setting("CROSSDOCK_LOCAL_DIR") {
            Some(directory) => root.join(directory),
            None => root.join(".local/stack"),
        };
        let addresses = Addresses {
            api: address("ADDRESS_API", 8787)?,
            providers: names()
                .zip(8801..)
                .map(|(name, port)| Ok((name, address(&variable(name), port)?)))
                .collect::<Result<_, Trouble>>()?,
            receiver: address("ADDRESS_RECEIVER", 8799)?,
            aws: address("ADDRESS_AWS", 4566)?,
        };
        Ok(Self {
            addresses,
            directory,
            program: program()?,
            root,
            build: true,
        })
    }

    /// A stack of a test's own: free ports and a directory of that name under `.local`.
    pub fn scratch(name: &str) -> Result<Self, Trouble> {
        // All are held until all are known, so that no number is handed out twice.
        let held: Vec<TcpListener> = (0..3 + names().count())
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .collect::<Result<_, _>>()
            .map_err(|error| Trouble::io("No free port", &error))?;
        let free: Vec<SocketAddr> = held
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<_, _>>()
            .map_err(|error| Trouble::io("No free port", &error))?;
        let addresses = Addresses {
            api: free[0],
            receiver: free[1],
            aws: free[2],
            providers: names().zip(free[3..].iter().copied()).collect(),
        };
        let root = checkout()?;
        Ok(Self {
            addresses,
            directory: root.join(".local").join(name),
            program: program()?,
            root,
            build: true,
        })
    }

    /// Where the stand-in of a provider listens.
    pub fn provider(&self, name: &str) -> Option<SocketAddr> {
        let providers = self.addresses.providers.iter();
        providers
            .copied()
            .find_map(|(known, address)| (known == name).then_some(address))
    }

    pub fn urls(&self) -> Urls {
        let url = |address: SocketAddr| format!("http://localhost:{}", address.port());
        Urls {
            api: url(self.addresses.api),
            providers: self
                .addresses
                .providers
                .iter()
                .map(|(name, address)| (*name, url(*address)))
                .collect(),
            receiver: url(self.addresses.receiver),
            // As a number: SDKs would otherwise put a bucket's name before `localhost`.
            aws: format!("http://{}", self.addresses.aws),
        }
    }

    /// Where a part keeps its state.
    pub(crate) fn state(&self, part: &str) -> PathBuf {
        self.directory.join("state").join(part)
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// Makes the directories.
    pub(crate) fn prepare(&self) -> Result<(), Trouble> {
        for part in ["state", "logs", "pids", "tmp"] {
            create(&self.directory.join(part))?;
        }
        for part in ["standins", "receiver"] {
            create(&self.state(part))?;
        }
        Ok(())
    }

    /// Removes what belongs to an earlier stack; what it logged is kept until the next one logs.
    pub(crate) fn forget_state(&self) -> Result<(), Trouble> {
        for part in ["state", "tmp"] {
            let path = self.directory.join(part);
            match fs::remove_dir_all(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Trouble::io(
                        format!("Cannot remove {}", path.display()),
                        &error,
                    ));
                }
            }
        }
        super::deploy::forget(self)?;
        self.prepare()
    }

    /// Waits until no other `local` works on this stack, and keeps others waiting until dropped.
    pub(crate) fn take_turn(&self) -> Result<File, Trouble> {
        let path = self.directory.join("lock");
        let trouble =
            |error: &std::io::Error| Trouble::io(format!("Cannot lock {}", path.display()), error);
        let file = File::create(&path).map_err(|error| trouble(&error))?;
        if file.try_lock().is_err() {
            super::say("Waiting for another `local` that works on this stack.");
            file.lock().map_err(|error| trouble(&error))?;
        }
        Ok(file)
    }
}

/// The variable that moves the stand-in of a provider.
pub(crate) fn variable(provider: &str) -> String {
    format!("ADDRESS_{}", provider.to_uppercase())
}

fn create(path: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(path)
        .map_err(|error| Trouble::io(format!("Cannot make {}", path.display()), &error))
}

/// The checkout is where this package was compiled.
fn checkout() -> Result<PathBuf, Trouble> {
    match Path::new(env!("CARGO_MANIFEST_DIR")).parent() {
        Some(root) if root.join("infra/template.yaml").exists() => Ok(root.to_owned()),
        _ => Err(Trouble::new(
            format!(
                "The checkout that this program was built from, {}, is gone.",
                env!("CARGO_MANIFEST_DIR")
            ),
            "Build it again where the checkout is now.",
        )),
    }
}

/// The program `local` beside the one that runs: itself, or for a test binary in `deps` the one above.
fn program() -> Result<PathBuf, Trouble> {
    let current = std::env::current_exe()
        .map_err(|error| Trouble::io("Cannot tell which program this is", &error))?;
    let folder = current.parent().unwrap_or(Path::new("."));
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    Ok(folder.join("local"))
}

fn address(name: &str, port: u16) -> Result<SocketAddr, Trouble> {
    let Some(value) = setting(name) else {
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    };
    match value
        .replace("localhost", "127.0.0.1")
        .parse::<SocketAddr>()
    {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err(Trouble::plain(format!(
            "{name}={value} is not a loopback address; nothing of the stack is open to the network."
        ))),
        Err(_) => Err(Trouble::plain(format!(
            "{name}={value} is not of the form 127.0.0.1:{port}."
        ))),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "These variables belong to the local stack; functions never see them."
)]
fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
