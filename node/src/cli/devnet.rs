//! `veil devnet`.

mod show;

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, builder::PossibleValuesParser};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use veil_node_config::job_file::JobFile;
use veil_node_containers::DEFAULT_SOCKET;
use veil_node_devnet::{
    Devnet, DevnetError, DevnetOptions, EventHandler, sample_image, sample_job,
};
use veil_node_terminal::progress::Steps;
use veil_protocol_spec::{Committee, scheduling::Name};

use self::show::{on_event, write_table};
use super::{
    failure::{Exit, Failure},
    output::{self, Reader},
    run::{block_on, conclude, log_to_file, stop_on_signals},
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Size of the committee.
    #[arg(long, default_value = "4", value_parser = PossibleValuesParser::new(["1", "4", "7", "10", "13"]))]
    members: String,
    /// Number of workers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    workers: u16,
    /// Replicas of the sample job.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// Image of the sample job, by digest; the one that `cargo xtask setup --docker` made, if it is
    /// not given.
    #[arg(long, value_name = "REFERENCE@sha256:DIGEST", conflicts_with = "job")]
    image: Option<String>,
    /// A job file in place of the sample job.
    #[arg(long, value_name = "FILE", conflicts_with = "replicas")]
    job: Option<PathBuf>,
    /// FHE parameters: "production", or "insecure-test" (protects nothing, fast).
    #[arg(long, env = "VEIL_PARAMETERS", default_value = "production")]
    parameters: String,
    /// Each node as a process of its own.
    #[arg(long)]
    processes: bool,
    /// End everything once the job is placed, verified and anchored.
    #[arg(long)]
    exit_after_placement: bool,
    /// A folder for everything; it is left there. If it holds a network that was ended, that network
    /// goes on, with its chain. Keep the path short.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Port of the local chain's RPC on 127.0.0.1.
    #[arg(long, value_name = "PORT")]
    rpc_port: Option<u16>,
    /// A folder that each worker lends to jobs by this name; again for another.
    #[arg(long, value_name = "NAME")]
    volume: Vec<Name>,
    /// The Docker engine's socket.
    #[arg(long, env = "VEIL_DOCKER_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    docker_socket: PathBuf,
    /// Print one JSON object once the job is placed.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Exit {
    conclude(arguments.json, block_on(carry_out(arguments)))
}

async fn carry_out(arguments: &Arguments) -> Result<Exit, Failure> {
    let members = arguments.members.parse::<u8>().map_err(Failure::usage)?;
    let options = DevnetOptions {
        committee: Committee::new(members).map_err(Failure::usage)?,
        workers: arguments.workers.into(),
        parameters: arguments.parameters.clone(),
        processes: arguments.processes,
        rpc_port: arguments.rpc_port,
        docker_socket: arguments.docker_socket.clone(),
        volumes: arguments.volume.clone(),
    };
    let job = job(arguments)?;
    let temporary = match arguments.keep {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("veil-devnet-")
                .tempdir()
                .map_err(Failure::file(&env::temp_dir()))?,
        ),
    };
    let folder = arguments.keep.as_deref().or(temporary.as_ref().map(|dir| dir.path()));
    let folder = folder.map(Path::to_owned).unwrap_or_default();
    fs::create_dir_all(&folder).map_err(Failure::file(&folder))?;
    log_to_file(&folder.join("devnet.log"))?;
    let stop = stop_on_signals()?;

    let progress = Arc::new(Steps::default());
    if arguments.parameters == "insecure-test" {
        progress.say("WARNING: insecure test parameters: the encryption protects nothing");
    }
    progress.say(&format!("folder: {}", folder.display()));
    let shown = Arc::clone(&progress);
    let handler: EventHandler = Arc::new(move |event| on_event(&shown, event));
    let prepared = if Devnet::is_kept(&folder) {
        progress.say("the folder holds a network, which goes on");
        Devnet::resume(options, &folder, handler, stop.clone()).await
    } else {
        Devnet::prepare(options, &folder, handler, stop.clone()).await
    };
    let ended = match prepared {
        Ok(mut devnet) => {
            let done = serve(&mut devnet, arguments, job, &folder, &progress, &stop).await;
            progress.step("ending");
            let ended = devnet.end().await;
            done.and_then(|exit| Ok(ended.map(|()| exit)?))
        }
        Err(error) => Err(error.into()),
    };
    progress.finish();
    if ended.is_err()
        && let Some(temporary) = temporary
    {
        // The error may name logs in it.
        output::note(format!("left for a look: {}", temporary.keep().display()));
    }
    ended
}

/// From the start of the nodes to the end of the stay.
async fn serve(
    devnet: &mut Devnet,
    arguments: &Arguments,
    job: JobFile,
    folder: &Path,
    progress: &Steps,
    stop: &CancellationToken,
) -> Result<Exit, Failure> {
    let replicas = job.replicas();
    devnet.start_nodes().await?;
    let key_set = devnet.make_key().await?;
    devnet.await_ready(key_set).await?;
    progress.step("placement");
    let job = devnet.submit(job).await?;
    progress.say(&format!("job {job} is submitted"));
    let running = devnet.await_running(job, replicas).await?;
    let placed = devnet.verify(job, running).await?;
    let figures = devnet.figures(placed.slot).await?;
    progress.finish();
    let mut report = json!(placed);
    if let (Value::Object(report), Value::Object(more)) = (&mut report, json!(figures)) {
        report.extend(more);
        report.insert("folder".to_owned(), json!(arguments.keep.as_ref().map(|_| folder)));
        report.insert("parameters".to_owned(), json!(arguments.parameters));
        report.insert("processes".to_owned(), json!(arguments.processes));
    }
    let reader = output::show(arguments.json, &report, |out| write_table(out, &placed, &figures))?;
    if arguments.exit_after_placement || reader == Reader::Left {
        return Ok(Exit::Done);
    }
    progress.say(&format!(
        "the network stays up until Ctrl-C; try: veil job status --devnet {}",
        folder.display()
    ));
    stop.cancelled().await;
    Ok(Exit::Done)
}

fn job(arguments: &Arguments) -> Result<JobFile, Failure> {
    if let Some(path) = &arguments.job {
        let text = fs::read_to_string(path).map_err(Failure::file(path))?;
        let job = JobFile::parse(&text).map_err(DevnetError::from)?;
        return Ok(job.in_folder(path.parent().map(Into::into).unwrap_or_default()));
    }
    let image = arguments.image.clone().or_else(sample_image).ok_or_else(|| {
        Failure::usage(
            "no image to run: `cargo xtask demo` makes one and runs this command, or give one with --image",
        )
    })?;
    Ok(sample_job(&image, arguments.replicas)?)
}
