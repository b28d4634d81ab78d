//! GPUs of this host, as NVIDIA's driver counts them.
//!
//! Which kind they are is a public label of the worker, such as `gpu=a100`: a job names it among its
//! constraints. How many are free is telemetry. A device that fails is not offered, nor one on which programs
//! compute that are in no container of this worker.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

use nvml_wrapper::{Device, Nvml, error::NvmlError};
use veil_node_containers::{Gpu, Held};

/// The driver's library, if the host has one; loaded at run time.
pub(crate) struct Gpus {
    nvml: Option<Nvml>,
    /// Numbers of those that failed when they were last looked at.
    failing: Mutex<BTreeSet<u32>>,
}

impl Gpus {
    /// Looks for the driver. A host without one has no GPUs.
    pub(crate) fn open() -> Self {
        Self::of(Nvml::init())
    }

    /// The same with a library of another name.
    #[cfg(test)]
    fn open_at(library: &std::ffi::OsStr) -> Self {
        Self::of(Nvml::builder().lib_path(library).init())
    }

    fn of(opened: Result<Nvml, NvmlError>) -> Self {
        let nvml = opened.inspect_err(|error| tracing::debug!(%error, "no GPU driver")).ok();
        Self { nvml, failing: Mutex::default() }
    }

    /// How many can be used now.
    pub(super) fn usable(&self, held: &Held) -> u64 {
        if held.gives_no_gpus { 0 } else { self.count(&held.devices) }
    }

    /// Devices that can be used now, those included that the worker's own containers have.
    fn count(&self, own: &BTreeSet<String>) -> u64 {
        let usable = |device: &&Gpu| device.is_free || device.is_sound && own.contains(&device.id);
        self.devices().iter().filter(usable).count().try_into().unwrap_or(0)
    }

    /// All of them, in the driver's order. Their ids are not for the log: they tell machines apart.
    pub(crate) fn devices(&self) -> Vec<Gpu> {
        let Some(nvml) = &self.nvml else { return Vec::new() };
        let count = nvml.device_count().unwrap_or(0);
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let device = |index| match nvml.device_by_index(index).and_then(|device| look(&device)) {
            Ok(device) => {
                failing.remove(&index);
                device
            }
            Err(error) => {
                if failing.insert(index) {
                    tracing::warn!(index, %error, "a GPU fails; it is not offered");
                }
                Gpu::default()
            }
        };
        (0..count).map(device).collect()
    }
}

/// # Errors
/// If the driver says that it cannot be used.
fn look(device: &Device<'_>) -> Result<Gpu, NvmlError> {
    let id = device.uuid()?;
    // Boards that share the host's memory say that they have none of their own.
    let is_sound = said(device.memory_info())?.is_none_or(|memory| memory.total > 0);
    let processes = said(device.running_compute_processes_count())?.unwrap_or(0);
    Ok(Gpu { id, is_sound, is_free: is_sound && processes == 0 })
}

/// Nothing where the driver cannot say it of this kind of device, which is no failure.
fn said<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, NvmlError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(
            NvmlError::NotSupported | NvmlError::NoPermission | NvmlError::FailedToLoadSymbol(_),
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, fs, path::Path, process::Command};

    use tempfile::TempDir;

    use super::*;

    /// Errors of NVML.
    const NOT_SUPPORTED: u32 = 3;
    const GPU_IS_LOST: u32 = 15;
    const UNKNOWN: u32 = 999;

    /// A driver's library that says what a file says.
    struct Driver {
        folder: TempDir,
    }

    impl Driver {
        fn build() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvml.c");
            let state = folder.path().join("devices");
            let built = Command::new("cc")
                .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
                .arg(folder.path().join("libnvidia-ml.so.1"))
                .arg(format!("-DSTATE=\"{}\"", state.display()))
                .arg(source)
                .status()
                .unwrap();
            assert!(built.success(), "`cargo xtask setup` installs a C compiler");
            Self { folder }
        }

        fn has(&self, devices: &[(&str, u64, u32, u32)]) {
            let line = |(id, memory, processes, answer): &(&str, u64, u32, u32)| {
                format!("{id} {memory} {processes} {answer}\n")
            };
            let lines: String = devices.iter().map(line).collect();
            fs::write(self.folder.path().join("devices"), lines).unwrap();
        }

        fn open(&self) -> Gpus {
            Gpus::open_at(self.folder.path().join("libnvidia-ml.so.1").as_os_str())
        }
    }

    fn gpu(id: &str, is_sound: bool, is_free: bool) -> Gpu {
        Gpu { id: id.to_owned(), is_sound, is_free }
    }

    fn own(ids: &[&str]) -> BTreeSet<String> {
        ids.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn what_fails_or_is_used_elsewhere_is_not_offered() {
        let driver = Driver::build();
        driver.has(&[("GPU-a", 80 << 30, 0, 0), ("GPU-b", 80 << 30, 2, 0)]);
        let gpus = driver.open();
        let (a, b) = (gpu("GPU-a", true, true), gpu("GPU-b", true, false));
        assert_eq!(gpus.devices(), [a.clone(), b]);
        assert_eq!(gpus.count(&own(&[])), 1, "somebody computes on the other");
        assert_eq!(gpus.count(&own(&["GPU-b"])), 2, "a container of this worker does");
        let held = |gives_no_gpus| Held { gives_no_gpus, ..Held::default() };
        assert_eq!((gpus.usable(&held(false)), gpus.usable(&held(true))), (1, 0));
        // It is asked again each time. One falls off the bus; what stands behind it keeps its number.
        for answer in [GPU_IS_LOST, UNKNOWN, NOT_SUPPORTED] {
            driver.has(&[("GPU-x", 80 << 30, 0, answer), ("GPU-a", 80 << 30, 0, 0)]);
            assert_eq!(gpus.devices(), [Gpu::default(), a.clone()], "{answer}");
            assert_eq!(gpus.count(&own(&["GPU-x"])), 1);
        }
        driver.has(&[("GPU-a", 0, 0, 0)]);
        assert_eq!(gpus.devices(), [gpu("GPU-a", false, false)], "it has no memory left");
        assert_eq!(gpus.count(&own(&["GPU-a"])), 0);
        driver.has(&[]);
        assert_eq!((gpus.devices(), gpus.count(&own(&[]))), (Vec::new(), 0));
    }

    #[test]
    fn without_a_driver_there_are_none() {
        let driver = Driver::build();
        let none = |gpus: Gpus| gpus.devices().is_empty() && gpus.count(&own(&[])) == 0;
        assert!(none(driver.open()), "the driver is not loaded");
        driver.has(&[("GPU-a", 80 << 30, 0, 0)]);
        assert_eq!(driver.open().devices().len(), 1);
        // It is unloaded while the worker runs.
        let gpus = driver.open();
        fs::remove_file(driver.folder.path().join("devices")).unwrap();
        assert!(none(gpus));
        assert!(none(Gpus::open_at(OsStr::new("/nowhere/libnvidia-ml.so.1"))));
        let text = driver.folder.path().join("text.so");
        fs::write(&text, "no library").unwrap();
        assert!(none(Gpus::open_at(text.as_os_str())));
    }
}
