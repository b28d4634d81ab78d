//! Proven lists: what each step of one takes, and lists that outlive a process, so that another one
//! evaluates the same bits (ciphertexts come from the system's randomness).

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter},
    path::PathBuf,
};

use peak_alloc::PeakAlloc;
use serde::Serialize;
use tfhe::{get_pbs_count, reset_pbs_count};
use veil_keygen_ceremony::keyset::ParameterSet;
use veil_node_process::Stopwatch;
use veil_protocol_spec::scheduling::ProvenList;
use veil_scheduler::{ListError, ReferenceString};

use crate::failure::Failure;

/// Proven lists of one kind, each once.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ListFigures {
    /// Bytes of one list.
    pub bytes: usize,
    /// Core-seconds to encrypt and prove one; absent if all were kept from an earlier run.
    pub prove_core_seconds: Option<f64>,
    /// Core-seconds to verify one.
    pub verify_core_seconds: f64,
    /// Core-seconds to expand one after its verification.
    pub expand_core_seconds: f64,
    /// Look-ups to expand one.
    pub pbs: u64,
    /// Memory of one that is expanded; 0 if the process does not count its allocations.
    pub expanded_memory_bytes: u64,
}

/// Lists as they are sent and expanded, and what one took.
pub(crate) struct Lists<T> {
    pub(crate) proven: Vec<ProvenList>,
    pub(crate) expanded: Vec<T>,
    pub(crate) figures: ListFigures,
}

/// A directory of what was encrypted before; nothing is kept without one.
#[derive(Clone, Debug, Default)]
pub struct Kept(Option<PathBuf>);

impl Kept {
    /// In `directory`, which is created if it does not exist.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new(directory: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(directory) = &directory {
            fs::create_dir_all(directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        Ok(Self(directory))
    }

    /// Proves `count` lists called `name` under `string`, or takes those that are kept, verifies
    /// them, then expands them.
    pub(crate) fn lists<T>(
        &self,
        string: &ReferenceString,
        name: &str,
        count: usize,
        prove: impl Fn(usize) -> Result<ProvenList, ListError>,
        verify: impl Fn(usize, &ProvenList) -> Result<(), ListError>,
        verify_and_expand: impl Fn(usize, &ProvenList) -> Result<T, ListError>,
    ) -> Result<Lists<T>, Failure> {
        let mut proven = Vec::new();
        let mut proofs = Vec::new();
        for number in 0..count {
            let name = format!("{name}-{number}");
            let (list, core_seconds) = self.list(&name, string, || prove(number))?;
            proofs.extend(core_seconds);
            proven.push(list);
        }
        let lists = count.max(1) as f64;
        let watch = Stopwatch::start();
        proven.iter().enumerate().try_for_each(|(number, list)| verify(number, list))?;
        let verify_core_seconds = watch.cpu() / lists;
        let memory = PeakAlloc.current_usage();
        reset_pbs_count();
        let watch = Stopwatch::start();
        let expanded = proven
            .iter()
            .enumerate()
            .map(|(number, list)| verify_and_expand(number, list))
            .collect::<Result<Vec<_>, _>>()?;
        let figures = ListFigures {
            bytes: proven.first().map_or(0, |list| list.as_bytes().len()),
            prove_core_seconds: (!proofs.is_empty())
                .then(|| proofs.iter().sum::<f64>() / proofs.len() as f64),
            verify_core_seconds,
            expand_core_seconds: (watch.cpu() / lists - verify_core_seconds).max(0.0),
            pbs: get_pbs_count() / count.max(1) as u64,
            expanded_memory_bytes: (PeakAlloc.current_usage().saturating_sub(memory) / count.max(1))
                as u64,
        };
        Ok(Lists { proven, expanded, figures })
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.0.as_ref().map(|directory| directory.join(name))
    }

    /// The reference string of these parameters.
    ///
    /// # Errors
    /// If tfhe makes none, or the file is not one for these parameters.
    pub fn reference_string(&self, parameters: &ParameterSet) -> Result<ReferenceString, Failure> {
        let path = self.path(&format!("{}.reference-string", parameters.name()));
        if let Some(path) = path.as_ref().filter(|path| path.exists()) {
            return ReferenceString::read(BufReader::new(File::open(path)?), *parameters.pke())
                .map_err(|error| format!("{}: {error}", path.display()).into());
        }
        let string = ReferenceString::generate_insecure(*parameters.pke())?;
        if let Some(path) = path {
            string.write(BufWriter::new(File::create(path)?))?;
        }
        Ok(string)
    }

    /// The list called `name` under `string`, and the core-seconds that `prove` took if it is new.
    fn list(
        &self,
        name: &str,
        string: &ReferenceString,
        prove: impl FnOnce() -> Result<ProvenList, ListError>,
    ) -> Result<(ProvenList, Option<f64>), Failure> {
        // Named by the string, and so by the parameters: a list under another would be refused.
        let path = self.path(&format!("{name}-{}.list", string.digest()));
        if let Some(path) = path.as_ref().filter(|path| path.exists()) {
            return Ok((ProvenList::new(fs::read(path)?)?, None));
        }
        let watch = Stopwatch::start();
        let list = prove()?;
        let core_seconds = watch.cpu();
        if let Some(path) = path {
            fs::write(path, list.as_bytes())?;
        }
        Ok((list, Some(core_seconds)))
    }
}
