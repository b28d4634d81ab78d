//! GPUs of this host, as NVIDIA's driver counts them.
//!
//! Which kind they are is a public label of the worker, such as `gpu=a100`: a job names it among its
//! constraints. How many are free is telemetry.

use nvml_wrapper::Nvml;

/// The driver's library, if the host has one; loaded at run time.
pub(crate) struct Gpus(Option<Nvml>);

impl Gpus {
    /// Looks for the driver. A host without one has no GPUs.
    pub(crate) fn open() -> Self {
        Self(Nvml::init().inspect_err(|error| tracing::debug!(%error, "no GPU driver")).ok())
    }

    /// Devices that the driver can use now.
    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().and_then(|nvml| nvml.device_count().ok()).unwrap_or(0).into()
    }

    /// Their ids, in the driver's order. Not for the log: they tell machines apart.
    pub(crate) fn ids(&self) -> Vec<String> {
        let Some(nvml) = &self.0 else { return Vec::new() };
        let count = nvml.device_count().unwrap_or(0);
        let id = |index| nvml.device_by_index(index).and_then(|device| device.uuid()).ok();
        (0..count).filter_map(id).collect()
    }
}
