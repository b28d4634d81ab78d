//! Machines and jobs from a file.
//!
//! CSV with the header [`HEADER`], one machine or pod a line. Millicores, MiB, whole GPUs; seconds of arrival from the
//! start of the trace, and of duration. The last two columns are empty for machines:
//!
//! ```text
//! kind,cpu_milli,memory_mib,gpus,arrival,duration
//! machine,64000,262144,4,,
//! pod,4000,8192,1,30,3600
//! ```

use super::{Amounts, Arrival, Workload};
use veil_protocol_spec::scheduling::MAX_TELEMETRY;

/// The first line.
pub const HEADER: &str = "kind,cpu_milli,memory_mib,gpus,arrival,duration";

/// The longest trace: a year.
const LONGEST: u64 = 366 * 86_400;

/// Why a trace is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum TraceError {
    /// The columns are others.
    #[error("the first line is `{0}`: it must be `{HEADER}`")]
    Header(String),
    /// Too few or too many values.
    #[error("line {line} has {found} values: the header names 6")]
    Columns { line: usize, found: usize },
    /// Neither machine nor pod.
    #[error("line {line} is of kind `{kind}`: write `machine` or `pod`")]
    Kind { line: usize, kind: String },
    /// Not a number in range.
    #[error("line {line}, {column} = `{value}`: a whole number from {least} to {most} is needed")]
    Value { line: usize, column: &'static str, value: String, least: u64, most: u64 },
    /// Nobody to place anything on, or more than a slot considers.
    #[error("{0} machines: 1 to {MAX_TELEMETRY} are possible")]
    Machines(usize),
    /// Nothing to place.
    #[error("the trace has no pod")]
    NoPod,
}

/// Reads one column of a line.
fn number(
    line: usize,
    column: &'static str,
    value: &str,
    (least, most): (u64, u64),
) -> Result<u64, TraceError> {
    let found = value.trim().parse().ok().filter(|found| (least..=most).contains(found));
    let value = || value.trim().to_owned();
    found.ok_or_else(|| TraceError::Value { line, column, value: value(), least, most })
}

impl Workload {
    /// The machines and pods of a trace, placed as those of [`Workload::synthetic`] are. Pods come in the order of
    /// their arrival, those of one second in that of the file.
    ///
    /// # Errors
    /// [`TraceError`], with the line.
    pub fn from_trace(text: &str) -> Result<Self, TraceError> {
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let header = lines.next().map_or("", |(_, line)| line.trim());
        if header != HEADER {
            return Err(TraceError::Header(header.to_owned()));
        }
        let (mut machines, mut arrivals) = (Vec::new(), Vec::new());
        for (line, text) in lines {
            let values: Vec<_> = text.split(',').collect();
            let found = values.len();
            let Ok([kind, cpu, memory, gpus, arrival, duration]) = <[&str; 6]>::try_from(values)
            else {
                return Err(TraceError::Columns { line, found });
            };
            let is_machine = match kind.trim() {
                "machine" => true,
                "pod" => false,
                kind => return Err(TraceError::Kind { line, kind: kind.to_owned() }),
            };
            let amounts = Amounts([
                number(line, "cpu_milli", cpu, (1, 1 << 32))?,
                number(line, "memory_mib", memory, (1, 1 << 32))?,
                0,
                number(line, "gpus", gpus, (0, 1 << 16))?,
            ]);
            if is_machine {
                machines.push(amounts);
            } else {
                arrivals.push(Arrival {
                    at: number(line, "arrival", arrival, (0, LONGEST))?,
                    seconds: number(line, "duration", duration, (1, LONGEST))?,
                    request: amounts,
                });
            }
        }
        if !(1..=MAX_TELEMETRY).contains(&machines.len()) {
            return Err(TraceError::Machines(machines.len()));
        }
        arrivals.sort_by_key(|arrival| arrival.at);
        let last = arrivals.last().ok_or(TraceError::NoPod)?.at;
        Ok(Self::placed_by_slots(machines, arrivals, last))
    }
}
