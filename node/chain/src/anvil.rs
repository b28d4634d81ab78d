//! A local chain: Foundry's anvil as a child process on loopback, ended when dropped.
//!
//! The program is searched at `VEIL_ANVIL`, in `contracts/node_modules` of the working folder and of all
//! folders above it and above this program, and in `PATH`. `cargo xtask setup` installs it.
//!
//! # Caveats
//! - Everybody knows the accounts' keys: Foundry's test phrase gives them.
//! - A parent that is killed cannot end its child: end the `anvil` process by hand then.

use std::{
    env,
    path::{Path, PathBuf},
};

use alloy::{
    node_bindings::{Anvil as Builder, AnvilInstance},
    signers::local::PrivateKeySigner,
};
use async_recursion::async_recursion as boxed;
use veil_protocol_spec::ChainId;

use crate::key::AccountKey;

/// Environment variable with the program's path.
const PROGRAM_VARIABLE: &str = "VEIL_ANVIL";
/// Where npm installs the native program. The one in `.bin` is a script that does not pass signals on.
const NPM_PACKAGES: [&str; 4] =
    ["anvil-linux-amd64", "anvil-linux-arm64", "anvil-darwin-amd64", "anvil-darwin-arm64"];
/// How long the program may take to start, in milliseconds.
const START_TIMEOUT_MILLIS: u64 = 30_000;
/// Between two writes of the state, in seconds.
const STATE_INTERVAL_SECONDS: &str = "30";

/// Why a local chain did not start.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum AnvilError {
    /// The program is not installed.
    #[error(
        "anvil, the local chain, is not installed: run `cargo xtask setup` in Veil's checkout, or set VEIL_ANVIL to its path"
    )]
    Missing,
    /// The program does not start.
    #[error("{program} does not start: {detail}")]
    Start { program: PathBuf, detail: String },
}

/// How to start a local chain.
#[derive(Clone, Debug, Default)]
pub struct AnvilConfig {
    /// The port on 127.0.0.1; a free one if none is given.
    pub port: Option<u16>,
    /// The file that holds the state: blocks, transactions, events. It is read at the start if it exists,
    /// and written at the end and every half minute.
    pub state: Option<PathBuf>,
    /// The chain id; 31337 if none is given.
    pub chain_id: Option<ChainId>,
    /// Seconds after which there is a block without a transaction, too. None of these comes if none is given: then the
    /// chain's clock stands still between transactions.
    pub block_seconds: Option<u64>,
}

/// A running local chain.
#[derive(Debug)]
pub struct Anvil {
    instance: AnvilInstance,
}

impl Anvil {
    /// Starts a chain and waits until it listens.
    ///
    /// # Errors
    /// [`AnvilError`].
    #[boxed]
    pub async fn start(config: AnvilConfig) -> Result<Self, AnvilError> {
        let program = find().ok_or(AnvilError::Missing)?;
        let started = program.clone();
        let failed = |detail: String| AnvilError::Start { program: program.clone(), detail };
        // alloy blocks until the program has printed its first lines.
        tokio::task::spawn_blocking(move || start(&started, &config))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)
    }

    /// URL of its JSON-RPC.
    #[must_use]
    pub fn url(&self) -> String {
        self.instance.endpoint()
    }

    /// Its chain id.
    #[must_use]
    pub fn chain_id(&self) -> ChainId {
        ChainId(self.instance.chain_id())
    }

    /// The child's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.instance.child().id()
    }

    /// The keys of its 20 funded accounts.
    #[must_use]
    pub fn keys(&self) -> Vec<AccountKey> {
        let keys = self.instance.keys().iter();
        keys.map(|key| AccountKey(PrivateKeySigner::from_signing_key(key.into()))).collect()
    }

    /// The key of a funded account, 0 to 19.
    #[must_use]
    pub fn key(&self, account: usize) -> Option<AccountKey> {
        self.keys().into_iter().nth(account)
    }
}

fn start(program: &Path, config: &AnvilConfig) -> Result<Anvil, String> {
    let mut builder = Builder::at(program)
        .host("127.0.0.1")
        .port(config.port.unwrap_or(0))
        .arg("--accounts")
        .arg("20")
        .timeout(START_TIMEOUT_MILLIS);
    if let Some(path) = &config.state {
        // Written at intervals too, since a killed parent writes nothing at the end.
        builder = builder.arg("--state").arg(path.as_os_str());
        builder = builder.arg("--state-interval").arg(STATE_INTERVAL_SECONDS);
    }
    if let Some(chain) = config.chain_id {
        builder = builder.chain_id(chain.0);
    }
    if let Some(seconds) = config.block_seconds {
        builder = builder.block_time(seconds).arg("--mixed-mining");
    }
    let instance = builder.try_spawn().map_err(|error| error.to_string())?;
    Ok(Anvil { instance })
}

/// The first program found in the order of the module documentation.
fn find() -> Option<PathBuf> {
    if let Some(path) = env::var_os(PROGRAM_VARIABLE) {
        return Some(path.into());
    }
    let folders = [env::current_dir().ok(), env::current_exe().ok()];
    let installed = folders.iter().flatten().flat_map(|folder| folder.ancestors()).find_map(in_npm);
    installed.or_else(in_path)
}

fn in_npm(folder: &Path) -> Option<PathBuf> {
    let packages = folder.join("contracts/node_modules/@foundry-rs");
    let program = |package| packages.join(package).join("bin/anvil");
    NPM_PACKAGES.iter().map(program).find(|path| path.is_file())
}

fn in_path() -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join("anvil")).find(|path| path.is_file())
}
