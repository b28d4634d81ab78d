//! GPUs of this host, as NVIDIA's driver counts them.
//!
//! Which kind they are is a public label of the worker, such as `gpu=a100`: a job names it among its
//! constraints. How many are free is telemetry.

use nvml_wrapper::Nvml;

/// The driver's library, if the host has one; loaded at run time.
pub(super) struct Gpus(Option<Nvml>);

impl Gpus {
    /// Looks for the driver. A host without one has no GPUs.
    pub(super) fn open() -> Self {
        Self(Nvml::init().inspect_err(|error| tracing::debug!(%error, "no GPU driver")).ok())
    }

    /// Devices that the driver can use now.
    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().and_then(|nvml| nvml.device_count().ok()).unwrap_or(0).into()
    }
}
