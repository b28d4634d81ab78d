//! Proven lists that outlive a process, so that another one evaluates the same bits: ciphertexts
//! come from the system's randomness.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter},
    path::PathBuf,
};

use veil_keygen_ceremony::keyset::ParameterSet;
use veil_protocol_spec::scheduling::ProvenList;
use veil_scheduler::ReferenceString;

use crate::{placement::Failure, usage::Stopwatch};

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
    ///
    /// # Errors
    /// Whatever `prove` fails with, or the file.
    pub fn list<E: Into<Failure>>(
        &self,
        name: &str,
        string: &ReferenceString,
        prove: impl FnOnce() -> Result<ProvenList, E>,
    ) -> Result<(ProvenList, Option<f64>), Failure> {
        // Named by the string, and so by the parameters: a list under another would be refused.
        let path = self.path(&format!("{name}-{}.list", string.digest()));
        if let Some(path) = path.as_ref().filter(|path| path.exists()) {
            return Ok((ProvenList::new(fs::read(path)?)?, None));
        }
        let watch = Stopwatch::start();
        let list = prove().map_err(Into::into)?;
        let core_seconds = watch.cpu();
        if let Some(path) = path {
            fs::write(path, list.as_bytes())?;
        }
        Ok((list, Some(core_seconds)))
    }
}
