//! A local chain: Foundry's anvil as a child process on loopback, ended when dropped.
//!
//! The program is looked for at `VEIL_ANVIL`, in `contracts/node_modules` of the working folder and
//! of all folders above it and above this program, and in `PATH`. `cargo xtask setup` installs it.
//!
//! # Caveats
//! - The accounts' keys are known to everybody: they are made from Foundry's test phrase.
//! - A parent that is killed cannot end its child: look for `anvil` processes then.

use std::{
    env,
    path::{Path, PathBuf},
};

use alloy::{
    node_bindings::{Anvil as Builder, AnvilInstance},
    signers::local::PrivateKeySigner,
};
use veil_protocol_spec::ChainId;

use crate::key::AccountKey;

/// Environment variable with the program's path.
const PROGRAM_VARIABLE: &str = "VEIL_ANVIL";
/// Where npm puts the native program; the one in `.bin` is a script around it that would not pass
/// signals on.
const NPM_PACKAGES: [&str; 4] =
    ["anvil-linux-amd64", "anvil-linux-arm64", "anvil-darwin-amd64", "anvil-darwin-arm64"];
/// How long it may take to start, in milliseconds.
const START_MILLIS: u64 = 30_000;

/// Between two writes of the state, in seconds.
const STATE_SECONDS: &str = "30";

/// Why there is no local chain.
#[derive(Debug, thiserror::Error)]
pub enum AnvilError {
    /// The program is not installed.
    #[error(
        "anvil, the local chain, is not installed: run `cargo xtask setup` in Veil's checkout, or set VEIL_ANVIL to its path"
    )]
    Missing,
    /// It does not start.
    #[error("{program} does not start: {detail}")]
    Start {
        /// Which program.
        program: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// How to start a local chain.
#[derive(Clone, Debug, Default)]
pub struct AnvilConfig {
    /// The port on 127.0.0.1; a free one if none is given.
    pub port: Option<u16>,
    /// A file from which the state is read, if it exists, with blocks, transactions and events, and to
    /// which it is written at the end and every half minute.
    pub state: Option<PathBuf>,
    /// Another chain id than 31337.
    pub chain_id: Option<ChainId>,
    /// Seconds between blocks; a block per transaction if none is given.
    pub block_seconds: Option<u64>,
}

/// A running local chain.
#[derive(Debug)]
pub struct Anvil {
    instance: AnvilInstance,
}

impl Anvil {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// [`AnvilError`].
    pub async fn start(config: AnvilConfig) -> Result<Self, AnvilError> {
        let program = find().ok_or(AnvilError::Missing)?;
        let started = program.clone();
        let failed = |detail: String| AnvilError::Start { program: program.clone(), detail };
        // The library waits for the first lines on a thread.
        tokio::task::spawn_blocking(move || start(&started, &config))
            .await
            .map_err(|error| failed(error.to_string()))?
            .map_err(failed)
    }

    /// URL of its RPC.
    #[must_use]
    pub fn url(&self) -> String {
        self.instance.endpoint()
    }

    /// Its chain id.
    #[must_use]
    pub fn chain_id(&self) -> ChainId {
        ChainId(self.instance.chain_id())
    }

    /// Process id of the child.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.instance.child().id()
    }

    /// Keys of its funded accounts.
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
        .timeout(START_MILLIS);
    if let Some(path) = &config.state {
        // Written at the end, and now and then, in case that the parent is killed.
        builder = builder.arg("--state").arg(path.as_os_str());
        builder = builder.arg("--state-interval").arg(STATE_SECONDS);
    }
    if let Some(chain) = config.chain_id {
        builder = builder.chain_id(chain.0);
    }
    if let Some(seconds) = config.block_seconds {
        builder = builder.block_time(seconds);
    }
    let instance = builder.try_spawn().map_err(|error| error.to_string())?;
    Ok(Anvil { instance })
}

/// The first program found.
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
