//! `veil job import`: job files from what others wrote.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};
use veil_node_config::docker_login;
use veil_node_config::job_file::{JobFile, quantity::Measure};
use veil_node_import::{
    Import as Imported, Job, MAX_BYTES, Options, build::Builder, report::Dropped,
};
use veil_node_registry::Registry;
use veil_node_terminal::waiting;

use crate::cli::{
    failure::{Exit, Failure},
    output,
};

/// Stands for the image, which may still be to be filled in, while the rest of a job file is checked.
const ANY_IMAGE: &str =
    "image = \"image@sha256:0000000000000000000000000000000000000000000000000000000000000000\"";

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// A Compose file, Kubernetes objects, or Akash's SDL.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Import only this service or workload.
    #[arg(long, value_name = "NAME")]
    service: Vec<String>,
    /// Where to write the job files; otherwise beside FILE, and with --json nowhere.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write over files that are there.
    #[arg(long)]
    force: bool,
    /// What jobs of Compose and Akash are named after; otherwise the file's `name`, or its folder.
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Whose workers may read what is sealed: an organisation, or `any`.
    #[arg(long, value_name = "NAME")]
    organisation: Vec<String>,
    /// CPU of a service that asks for none.
    #[arg(long, value_name = "CPU", default_value = "500m", value_parser = |text: &str| quantity(Measure::Cpu, text))]
    cpu: u64,
    /// Memory of a service that asks for none.
    #[arg(long, value_name = "SIZE", default_value = "512Mi", value_parser = |text: &str| quantity(Measure::Bytes, text))]
    memory: u64,
    /// A file of variables for Compose, in place of `.env`.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Build images with the engine, push them, and pin what was pushed.
    #[arg(long)]
    build: bool,
    /// Where to push what is built, `registry.example/team`; otherwise under the name that FILE gives it.
    #[arg(long, value_name = "PREFIX", requires = "build")]
    push_to: Option<String>,
    /// The engine's command, which takes `docker`'s arguments.
    #[arg(long, value_name = "PROGRAM", default_value = "docker", requires = "build")]
    engine: String,
    /// Ask no registry for the digests of tags.
    #[arg(long)]
    offline: bool,
    /// Where a registry asks for a password, have the job pull with what `docker login` left, sealed.
    #[arg(long)]
    registry_login: bool,
    /// Of images for several architectures, which one to pin.
    #[arg(long, value_name = "NAME", default_value = "amd64")]
    architecture: String,
    /// A registry without TLS; those of this machine may have none.
    #[arg(long, value_name = "HOST:PORT")]
    insecure_registry: Vec<String>,
    /// Print one JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

fn quantity(measure: Measure, text: &str) -> Result<u64, String> {
    measure.parse(text).map_err(|error| error.to_string())
}

/// A job file that is to be written.
struct JobText {
    path: PathBuf,
    text: String,
}

pub(super) async fn import(arguments: &Import) -> Result<Exit, Failure> {
    let path = &arguments.file;
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let text = read(path)?;
    // What nobody wants written is as it would be beside the file.
    let out = arguments.out.clone().unwrap_or_else(|| folder.clone());
    let options = Options {
        project: arguments.project.clone(),
        services: arguments.service.clone(),
        organisations: arguments.organisation.clone(),
        millicores: arguments.cpu,
        memory: arguments.memory,
        environment: env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        env_files: arguments.env_file.clone(),
    };
    let imported = veil_node_import::read(&text, &folder, &out, &options);
    let mut imported = imported.map_err(|error| {
        Failure::new(Exit::Usage, "import", format!("{}: {error}", path.display()))
    })?;
    if arguments.build {
        let builder =
            Builder { engine: arguments.engine.clone(), push_to: arguments.push_to.clone() };
        for job in &mut imported.jobs {
            builder.build(job).map_err(|error| Failure::new(Exit::Failed, "build", error))?;
        }
    }
    if !arguments.offline {
        pin(arguments, &mut imported).await?;
    }
    let mut texts = Vec::new();
    for job in &imported.jobs {
        let text = job.file_text(&options);
        if let Some(reason) = unsound(&text) {
            imported.expressible.insert(job.service.clone(), false);
            imported.dropped.push(Dropped {
                service: job.service.clone(),
                key: format!("{}.toml", job.name),
                reason,
                changes_behaviour: true,
                line: 0,
                column: 0,
            });
        }
        texts.push(JobText { path: out.join(format!("{}.toml", job.name)), text });
    }
    let writes = !arguments.json || arguments.out.is_some();
    if writes {
        write(&out, &texts, &imported, arguments.force)?;
    }
    let object = object(&imported, &texts, writes);
    output::show(arguments.json, &object, |out| show(out, &imported, &texts))?;
    let lost = imported.dropped.iter().any(|dropped| dropped.changes_behaviour);
    Ok(if lost { Exit::Failed } else { Exit::Done })
}

fn read(path: &Path) -> Result<String, Failure> {
    let length = fs::metadata(path).map_err(Failure::file(path))?.len();
    if length > MAX_BYTES as u64 {
        let says = format!("{}: {length} bytes: at most {MAX_BYTES} are read", path.display());
        return Err(Failure::new(Exit::Usage, "import", says));
    }
    fs::read_to_string(path).map_err(Failure::file(path))
}

/// Asks registries what the tags stand for now. What they do not tell is left to fill in.
async fn pin(arguments: &Import, imported: &mut Imported) -> Result<(), Failure> {
    let registry = Registry::new(arguments.insecure_registry.clone())?;
    let wanted: BTreeSet<_> = imported.jobs.iter().filter(|job| asks(job)).map(tag_of).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    waiting::on("asking registries what the tags stand for");
    let (registry, architecture) = (&registry, &arguments.architecture);
    let answers = wanted.into_iter().map(|(name, tag)| async move {
        let login = |name: &str| docker_login::credentials(name).map_err(|none| none.to_string());
        let answer = registry.resolve_or_log_in(&name, &tag, architecture, login).await;
        ((name, tag), answer)
    });
    for (asked, answer) in futures::future::join_all(answers).await {
        match answer {
            Ok((image, by_login)) => {
                let digest = format!("sha256:{}", image.digest_hex());
                for job in imported.jobs.iter_mut().filter(|job| asks(job) && tag_of(job) == asked)
                {
                    job.image.digest = Some(digest.clone());
                    job.docker_login = by_login && arguments.registry_login;
                }
                if by_login && !arguments.registry_login {
                    let says = "takes a password, and so do workers: --registry-login, or fill in [registry]";
                    imported.notes.push(format!("{}:{}: {says}", asked.0, asked.1));
                }
            }
            Err(says) => imported.notes.push(format!("{}:{}: {says}", asked.0, asked.1)),
        }
    }
    Ok(())
}

/// Whether a registry is to be asked: what is built may have been pushed.
fn asks(job: &Job) -> bool {
    job.image.digest.is_none() && !job.image.name.is_empty()
}

fn tag_of(job: &Job) -> (String, String) {
    let tag = job.image.tag.clone().unwrap_or_else(|| "latest".to_owned());
    (job.image.name.clone(), tag)
}

/// Why a job file is not sound, whatever is still filled in.
fn unsound(text: &str) -> Option<String> {
    let filled = text.lines().map(|line| match line {
        line if line.starts_with("image = ") => ANY_IMAGE,
        "# organisations = [\"...\"]" => "organisations = \"any\"",
        line => line,
    });
    let filled = filled.collect::<Vec<_>>().join("\n");
    let checked = JobFile::parse(&filled).and_then(|file| file.check().map(drop));
    checked.err().map(|error| error.to_string().replace('\n', "; "))
}

/// All files, or none: what would be written over is found first.
fn write(out: &Path, texts: &[JobText], imported: &Imported, force: bool) -> Result<(), Failure> {
    let jobs = texts.iter().map(|job| (job.path.clone(), job.text.as_bytes(), false));
    let beside = imported.files.iter();
    let beside = beside.map(|file| (out.join(&file.path), file.content.as_slice(), file.secret));
    let all: Vec<_> = jobs.chain(beside).collect();
    if let Some((path, ..)) = all.iter().find(|(path, ..)| !force && path.exists()) {
        let says =
            format!("{} exists, and nothing is written; --force writes over it", path.display());
        return Err(Failure::new(Exit::Files, "files", says));
    }
    for (path, content, secret) in all {
        let folder = path.parent().unwrap_or(out);
        fs::create_dir_all(folder).map_err(Failure::file(folder))?;
        let mode = if secret { 0o600 } else { 0o644 };
        let mut options = fs::File::options();
        options.write(true).truncate(force).create(force).create_new(!force).mode(mode);
        let written = options.open(&path).and_then(|mut file| {
            // A file that was there has the mode that it had.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(content)
        });
        written.map_err(Failure::file(&path))?;
    }
    Ok(())
}

fn object(imported: &Imported, texts: &[JobText], writes: bool) -> Value {
    let jobs = imported.jobs.iter().zip(texts).map(|(job, text)| {
        let volumes = job
            .host_volumes()
            .map(|(name, mount, was)| json!({ "name": name, "mount": mount, "was": was }));
        json!({
            "name": job.name,
            "service": job.service,
            "type": job.kind(),
            "image": job.image_text(),
            "pinned": job.image.digest.is_some(),
            "file": text.path,
            "written": writes,
            "fill_in": job.to_fill_in(),
            "host_volumes": volumes.collect::<Vec<_>>(),
            "toml": text.text,
        })
    });
    // Their content may be secret.
    let files: Vec<_> = imported
        .files
        .iter()
        .map(|file| json!({ "path": file.path, "secret": file.secret }))
        .collect();
    json!({
        "format": imported.format.name(),
        "jobs": jobs.collect::<Vec<_>>(),
        "files": files,
        "dropped": imported.dropped,
        "expressible": imported.expressible,
        "notes": imported.notes,
    })
}

fn show(
    out: &mut dyn std::io::Write,
    imported: &Imported,
    texts: &[JobText],
) -> std::io::Result<()> {
    for (job, text) in imported.jobs.iter().zip(texts) {
        writeln!(out, "{}", text.path.display())?;
        for what in job.to_fill_in() {
            writeln!(out, "  fill in {what}")?;
        }
        for (name, mount, was) in job.host_volumes() {
            writeln!(out, "  a worker must offer the volume `{name}` for {mount}: {was}")?;
        }
    }
    for file in &imported.files {
        writeln!(out, "{}{}", file.path, if file.secret { " (secret)" } else { "" })?;
    }
    for (heading, changes) in [("left out, which changes what runs:", true), ("left out:", false)] {
        let all: Vec<_> =
            imported.dropped.iter().filter(|d| d.changes_behaviour == changes).collect();
        if !all.is_empty() {
            writeln!(out, "{heading}")?;
        }
        for Dropped { service, key, reason, line, .. } in all {
            let of = if service.is_empty() { String::new() } else { format!("{service}: ") };
            let at = if *line == 0 { String::new() } else { format!(" (line {line})") };
            writeln!(out, "  {of}{key}{at}: {reason}")?;
        }
    }
    for note in &imported.notes {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}
