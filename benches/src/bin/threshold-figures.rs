//! Processor time of one member per decrypted block, against its limits. `--json` prints it for
//! machines. Exits with 1 if a limit is exceeded.

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use veil_benches::{committees, decryptors, squashed_blocks};
use veil_committee::decrypt::{PartialDecryptor, SquashedBlock, combine};
use veil_protocol_spec::{Committee, ParticipantIndex};

/// Blocks decrypted together.
const BLOCKS: usize = 48;
/// How long each figure is measured; the minimum counts, since others use the machine as well.
const MEASURE: Duration = Duration::from_millis(500);

/// Microseconds of processor time per member and packed block that a committee may take.
const fn limit_us(committee: Committee) -> Option<f64> {
    match committee.n() {
        4 => Some(30.0),
        13 => Some(120.0),
        _ => None,
    }
}

struct Figures {
    committee: Committee,
    partial_us: f64,
    combine_us: f64,
    /// From the first step to the last for one block alone.
    latency_us: f64,
}

impl Figures {
    fn measure(committee: Committee, blocks: &[SquashedBlock]) -> Self {
        let members = decryptors(committee);
        let count = blocks.len() as f64;
        let partial_us = minimum_us(|| drop(black_box(members[0].partial(blocks)))) / count;
        let partials = partials(&members, blocks);
        let combine_us = minimum_us(|| combine_all(committee, &partials, blocks.len())) / count;
        let one = &blocks[..1];
        let partials = self::partials(&members, one);
        let latency_us = minimum_us(|| {
            drop(black_box(members[0].partial(one)));
            combine_all(committee, &partials, 1);
        });
        Self { committee, partial_us, combine_us, latency_us }
    }

    fn total_us(&self) -> f64 {
        self.partial_us + self.combine_us
    }

    fn is_within_limit(&self) -> bool {
        limit_us(self.committee).is_none_or(|limit| self.total_us() <= limit)
    }

    fn json(&self) -> String {
        let Self { committee, partial_us, combine_us, latency_us } = self;
        let limit = limit_us(*committee).map_or_else(|| "null".into(), |limit| limit.to_string());
        format!(
            "{{\"n\":{},\"t\":{},\"partial_us\":{partial_us:.2},\"combine_us\":{combine_us:.2},\
             \"total_us\":{:.2},\"limit_us\":{limit},\"within_limit\":{},\
             \"single_block_latency_us\":{latency_us:.2}}}",
            committee.n(),
            committee.max_faulty(),
            self.total_us(),
            self.is_within_limit(),
        )
    }

    fn line(&self) -> String {
        let Self { committee, partial_us, combine_us, latency_us } = self;
        let limit = limit_us(*committee).map_or_else(|| "-".into(), |limit| limit.to_string());
        let (committee, total) = (committee.to_string(), self.total_us());
        format!(
            "{committee:8} {partial_us:10.2} {combine_us:10.2} {total:10.2} {limit:>8} \
             {latency_us:12.2}"
        )
    }
}

fn partials(
    members: &[PartialDecryptor],
    blocks: &[SquashedBlock],
) -> Vec<(ParticipantIndex, Vec<u8>)> {
    members
        .iter()
        .map(|m| (m.participant(), m.partial(blocks).expect("blocks of the key's dimension")))
        .collect()
}

fn combine_all(committee: Committee, partials: &[(ParticipantIndex, Vec<u8>)], blocks: usize) {
    let views: Vec<_> = partials.iter().map(|(j, bytes)| (*j, bytes.as_slice())).collect();
    black_box(combine(committee, &views, blocks)).expect("shares are consistent");
}

/// The least time that `op` takes.
fn minimum_us(mut op: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut minimum = Duration::MAX;
    while begin.elapsed() < MEASURE {
        let start = Instant::now();
        op();
        minimum = minimum.min(start.elapsed());
    }
    minimum.as_secs_f64() * 1e6
}

fn main() -> ExitCode {
    veil_benches::single_threaded();
    let blocks = squashed_blocks(BLOCKS);
    let figures: Vec<_> = committees().map(|c| Figures::measure(c, &blocks)).collect();
    if std::env::args().any(|argument| argument == "--json") {
        let rows: Vec<_> = figures.iter().map(Figures::json).collect();
        println!("{{\"blocks\":{BLOCKS},\"committees\":[\n  {}\n]}}", rows.join(",\n  "));
    } else {
        println!("processor time in us per member and block, batches of {BLOCKS}; one thread");
        println!("committee   partial    combine      total    limit  single block");
        figures.iter().for_each(|figures| println!("{}", figures.line()));
    }
    if figures.iter().all(Figures::is_within_limit) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
