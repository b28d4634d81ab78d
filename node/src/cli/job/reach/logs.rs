//! `veil job logs`.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use veil_node_config::job_file::quantity::seconds;
use veil_node_operator::{
    reach::{
        Named,
        logs::{Said, read},
    },
    show::nanoseconds,
};
use veil_node_process::unix_now;
use veil_node_terminal::waiting;
use veil_protocol_spec::{
    ReplicaIndex,
    reach::{LogPiece, LogsWanted},
};

use super::Reaching;
use crate::cli::{
    asking::Asking,
    failure::{Exit, Failure},
    output::{self, Reader},
};

/// Pieces that wait to be printed.
const QUEUE: usize = 256;
/// Of one line, before it is printed in parts.
const LINE: usize = 1 << 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct Logs {
    /// A job, by name, digest or its first digits, and perhaps which replica; otherwise all of them.
    #[arg(value_name = "JOB[/REPLICA]")]
    job: Named,
    /// Go on with what is written from now on, also when a replica is started again or moves, until the job is stopped.
    #[arg(short, long)]
    follow: bool,
    /// Only lines that are not older: 90s, 10m, 2h or 3d.
    #[arg(long, value_name = "AGE", value_parser = seconds)]
    since: Option<u64>,
    /// Only as many lines of each replica, the last.
    #[arg(long, value_name = "LINES")]
    tail: Option<u32>,
    /// Say before each line when it was written.
    #[arg(short, long)]
    timestamps: bool,
    #[command(flatten)]
    pub(in crate::cli::job) reaching: Reaching,
}

pub(in crate::cli::job) async fn logs(arguments: &Logs, asking: &Asking) -> Result<Exit, Failure> {
    let Logs { job, follow, since, tail, timestamps, reaching } = arguments;
    let (way, _) = reaching.way(asking).await?;
    waiting::on("looking where the replicas are");
    let places = way.places(job).await?;
    let now = unix_now().0.saturating_mul(1_000_000);
    let since = since.map(|age| now.saturating_sub(age.saturating_mul(1_000_000_000)));
    let wanted = LogsWanted { follow: *follow, since, tail: *tail };
    let mut printer = Printer {
        json: reaching.json(),
        timestamps: *timestamps,
        prefix: places.len() > 1,
        begun: BTreeMap::new(),
    };
    let (said, mut saying) = mpsc::channel(QUEUE);
    let mut reading = Box::pin(read(way, job.clone(), places, wanted, said));
    let mut ended = None;
    waiting::over();
    loop {
        let next = tokio::select! {
            ending = &mut reading, if ended.is_none() => {
                ended = Some(ending);
                continue;
            }
            next = saying.recv() => next,
        };
        match next {
            Some(Said::Note(replica, note)) => {
                output::note(format_args!("replica {replica}: {note}"))
            }
            Some(Said::Piece(replica, piece)) => {
                if printer.print(replica, &piece)? == Reader::Left {
                    return Ok(Exit::Done);
                }
            }
            None => break,
        }
    }
    printer.finish()?;
    match ended {
        Some(ended) => ended?,
        None => reading.await?,
    }
    Ok(Exit::Done)
}

/// Prints lines of several replicas, none within another.
struct Printer {
    json: bool,
    timestamps: bool,
    /// Whether it is said which replica has written a line.
    prefix: bool,
    /// Lines that have begun.
    begun: BTreeMap<ReplicaIndex, (u64, bool, Vec<u8>)>,
}

impl Printer {
    fn print(&mut self, replica: ReplicaIndex, piece: &LogPiece) -> Result<Reader, Failure> {
        let LogPiece { time, is_error, ref bytes } = *piece;
        let (_, _, line) =
            self.begun.entry(replica).or_insert_with(|| (time, is_error, Vec::new()));
        line.extend_from_slice(&bytes.0);
        if line.last() != Some(&b'\n') && line.len() < LINE {
            return Ok(Reader::Reads);
        }
        let Some((time, is_error, line)) = self.begun.remove(&replica) else {
            return Ok(Reader::Reads);
        };
        output::print(|out| self.write(out, replica, (time, is_error), &line))
    }

    /// What has begun, and does not go on.
    fn finish(&mut self) -> Result<(), Failure> {
        for (replica, (time, is_error, line)) in core::mem::take(&mut self.begun) {
            output::print(|out| self.write(out, replica, (time, is_error), &line))?;
        }
        Ok(())
    }

    fn write(
        &self,
        out: &mut dyn Write,
        replica: ReplicaIndex,
        (time, is_error): (u64, bool),
        line: &[u8],
    ) -> io::Result<()> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if self.json {
            let stream = if is_error { "stderr" } else { "stdout" };
            let text = String::from_utf8_lossy(text);
            let time = (time > 0).then(|| nanoseconds(time));
            let object =
                json!({ "replica": replica, "time": time, "stream": stream, "line": text });
            return writeln!(out, "{object}");
        }
        if self.prefix {
            write!(out, "{replica} | ")?;
        }
        if self.timestamps && time > 0 {
            write!(out, "{} ", nanoseconds(time))?;
        }
        out.write_all(text)?;
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use veil_protocol_spec::codec::Bytes;

    use super::*;

    #[test]
    fn no_line_is_within_another() {
        let mut printer =
            Printer { json: false, timestamps: false, prefix: true, begun: BTreeMap::new() };
        let piece = |text: &str| LogPiece {
            time: 1,
            is_error: false,
            bytes: Bytes(text.as_bytes().to_vec()),
        };
        assert_eq!(printer.print(ReplicaIndex(0), &piece("be")), Ok(Reader::Reads));
        assert_eq!(printer.begun.len(), 1);
        let mut out = Vec::new();
        printer.write(&mut out, ReplicaIndex(1), (0, false), b"whole\n").unwrap();
        assert_eq!(out, b"1 | whole\n");
        let mut out = Vec::new();
        printer.timestamps = true;
        printer.write(&mut out, ReplicaIndex(1), (1_795_806_798_000_000_001, false), b"x").unwrap();
        assert_eq!(out, b"1 | 2026-11-27T19:13:18.000000001Z x\n");
    }
}
