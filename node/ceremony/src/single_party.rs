//! A reference string that participant 1 makes alone, with tfhe's generator: **insecure**, and the
//! only way until the committee makes it together.

use std::{
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use backon::{ExponentialBuilder, Retryable};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_p2p::Network;
use veil_node_storage::durable::{hash_file, write_new_with};
use veil_protocol_spec::{
    PeerIdHash, PublicIdentity, publication::ReferenceString, scheduling::ReferenceStringOrigin,
};
use veil_scheduler::{Origin, ReferenceString as TelemetryString};

use crate::reference_string::{ReferenceStringError, ReferenceStringSource};

/// A string is about 1 MiB.
const MAX_BYTES: u64 = 64 << 20;
/// For one try to fetch it; what has arrived counts for the next one.
const DEADLINE: Duration = Duration::from_secs(120);
/// Tries after the first.
const RETRIES: usize = 5;

/// Makes the string on participant 1's machine, and gives it to the others as a file.
#[derive(Clone, Debug)]
pub struct SinglePartyReference {
    network: Network,
}

impl SinglePartyReference {
    /// Over this network. The member must accept it loudly:
    /// [`MemberOptions::insecure_reference_string`](crate::options::MemberOptions::insecure_reference_string).
    #[must_use]
    pub const fn new(network: Network) -> Self {
        Self { network }
    }
}

fn named(error: &dyn core::fmt::Display) -> ReferenceStringError {
    ReferenceStringError(error.to_string())
}

/// Runs what computes or waits for the disk where that is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReferenceStringError> + Send + 'static,
) -> Result<T, ReferenceStringError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| named(&error))?
}

/// Reads a string's file, checks its form, and names it.
fn describe(params: &ParameterSet, path: &Path) -> Result<ReferenceString, ReferenceStringError> {
    let shown = |error: &dyn core::fmt::Display| named(&format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| shown(&error))?;
    let string = TelemetryString::read(BufReader::new(file), *params.pke())
        .map_err(|error| shown(&error))?;
    let (file, bytes) = hash_file(path).map_err(|error| shown(&error))?;
    Ok(ReferenceString {
        digest: string.digest(),
        file,
        bytes,
        origin: match string.origin() {
            Origin::Committee => ReferenceStringOrigin::Committee,
            Origin::SingleParty => ReferenceStringOrigin::SingleParty,
        },
    })
}

fn make(params: &ParameterSet, path: &Path) -> Result<ReferenceString, ReferenceStringError> {
    if !path.exists() {
        tracing::warn!(
            "INSECURE: making the reference string of telemetry proofs on this machine alone; whoever controls it now can forge proofs"
        );
        let string =
            TelemetryString::generate_insecure(*params.pke()).map_err(|error| named(&error))?;
        write_new_with(path, 0o644, |file| string.write(file).map_err(io::Error::other))
            .map_err(|error| named(&error))?;
    }
    describe(params, path)
}

#[async_trait]
impl ReferenceStringSource for SinglePartyReference {
    fn origin(&self) -> ReferenceStringOrigin {
        ReferenceStringOrigin::SingleParty
    }

    async fn make(
        &self,
        params: &ParameterSet,
        path: &Path,
    ) -> Result<ReferenceString, ReferenceStringError> {
        let (params, file) = (params.clone(), path.to_owned());
        let reference = blocking(move || make(&params, &file)).await?;
        self.network.provide(reference.file, path.to_owned());
        Ok(reference)
    }

    async fn fetch(
        &self,
        params: &ParameterSet,
        announced: &ReferenceString,
        from: &PublicIdentity,
        path: &Path,
    ) -> Result<(), ReferenceStringError> {
        if !path.exists() {
            let peers = [PeerIdHash::of(from)];
            let limit = announced.bytes.min(MAX_BYTES);
            let fetch =
                || self.network.fetch(&peers, announced.file, path, limit, DEADLINE, |_| {});
            let backoff = ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(500))
                .with_max_times(RETRIES)
                .with_jitter();
            fetch.retry(backoff).await.map_err(|error| named(&error))?;
        }
        let (params, file): (ParameterSet, PathBuf) = (params.clone(), path.to_owned());
        let found = blocking(move || describe(&params, &file)).await?;
        if found != *announced {
            return Err(ReferenceStringError(format!(
                "{} is not the one that participant 1 named; remove the file to fetch it again",
                path.display()
            )));
        }
        self.network.provide(found.file, path.to_owned());
        Ok(())
    }
}
