//! A job as the text of a job file.

use core::fmt::Write as _;

use crate::{
    Options,
    job::{From, Health, Host, Job, Kind, Probe, Sealed, Target, VolumeKind},
    quantity::{bytes_text, cpu_text, time_text},
};

/// Stands where a digest is to be filled in.
const NO_DIGEST: &str = "sha256:";

/// A text as TOML has it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn list<T: AsRef<str>>(texts: &[T]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text.as_ref())).collect();
    format!("[{}]", texts.join(", "))
}

/// What a comment may say: one line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The text being written, section by section.
struct Text(String);

impl Text {
    fn line(&mut self, text: impl AsRef<str>) {
        self.0.push_str(text.as_ref());
        self.0.push('\n');
    }

    fn set(&mut self, key: &str, value: impl AsRef<str>) {
        let _ = writeln!(self.0, "{key} = {}", value.as_ref());
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.set(key, quoted(value));
        }
    }

    /// A section, if anything is in it.
    fn section(&mut self, header: &str, fill: impl FnOnce(&mut Self)) {
        let before = self.0.len();
        let _ = writeln!(self.0, "\n{header}");
        let begun = self.0.len();
        fill(self);
        if self.0.len() == begun {
            self.0.truncate(before);
        }
    }
}

impl Job {
    /// The image as a job file has it: with its digest, or with what is missing of it.
    #[must_use]
    pub fn image_text(&self) -> String {
        let name = match self.image.name.as_str() {
            "" => format!("registry.example/{}", self.name),
            _ => self.image.tagged(),
        };
        format!("{name}@{}", self.image.digest.as_deref().unwrap_or(NO_DIGEST))
    }

    /// What somebody has to fill in before it can be submitted, each with why.
    #[must_use]
    pub fn to_fill_in(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.image.digest.is_none() {
            all.push(match (&self.image.build, self.image.name.is_empty()) {
                (Some(_), _) => {
                    "image: build it with --build, or write the digest of what was pushed"
                        .to_owned()
                }
                (None, true) => "image: the file names none".to_owned(),
                (None, false) => format!("image: the digest of {}", line(&self.image.tagged())),
            });
        }
        if self.seals() && self.organisations.is_empty() {
            let what = "placement.organisations: whose workers may read what is sealed (--organisation NAME, or any)";
            all.push(what.to_owned());
        }
        all.extend(self.fill_in.iter().cloned());
        all
    }

    /// The text of the job file.
    #[must_use]
    pub fn file_text(&self, options: &Options) -> String {
        let mut out = Text(String::new());
        out.line(format!("# Imported from `{}`.", line(&self.service)));
        for what in self.to_fill_in() {
            out.line(format!("# Fill in {}.", line(&what)));
        }
        out.set("name", quoted(&self.name));
        if self.kind != Kind::Service {
            out.set("type", quoted(self.kind.word()));
        }
        out.set("image", quoted(&self.image_text()));
        if self.replicas != 1 && self.kind != Kind::System {
            out.set("replicas", self.replicas.to_string());
        }
        out.text("egress", self.egress);
        if let Some(time) = self.exclusive.filter(|_| self.kind != Kind::System) {
            out.set("lease", format!("{{ exclusive = {} }}", quoted(&time_text(time))));
        }
        match &self.kind {
            Kind::Batch { max_attempts } if *max_attempts != 1 => {
                out.section("[batch]", |out| out.set("max_attempts", max_attempts.to_string()));
            }
            Kind::Periodic { cron, time_zone, overlap } => out.section("[periodic]", |out| {
                out.set("cron", quoted(cron));
                out.text("time_zone", time_zone.as_deref());
                out.text("overlap", *overlap);
            }),
            _ => {}
        }
        self.write_resources(&mut out, options);
        self.write_container(&mut out);
        out.section("[env]", |out| {
            for (name, value) in &self.env {
                out.set(&quoted(name), quoted(value));
            }
        });
        for secret in &self.secrets {
            write_sealed(&mut out, "[[secret]]", secret);
        }
        for file in &self.files {
            write_sealed(&mut out, "[[file]]", file);
        }
        if self.docker_login && self.registry.is_none() {
            out.section("[registry]", |out| out.line("from = \"docker\""));
        }
        if let Some((username, from)) = &self.registry {
            out.section("[registry]", |out| {
                out.set("username", quoted(username));
                out.set("password", source(from));
            });
        }
        self.write_network(&mut out);
        self.write_volumes(&mut out);
        self.write_rules(&mut out);
        out.0
    }

    fn write_resources(&self, out: &mut Text, options: &Options) {
        let memory = self.memory(options);
        out.section("[resources]", |out| {
            let cpu = self.resources.millicores.unwrap_or(options.millicores).max(1);
            out.set("cpu", quoted(&cpu_text(cpu)));
            out.set("memory", quoted(&bytes_text(memory)));
            let ephemeral = |kind| if let VolumeKind::Ephemeral(size) = kind { size } else { 0 };
            let volumes: u64 = self.volumes.iter().map(|volume| ephemeral(volume.kind)).sum();
            let disk = self.resources.disk.max(volumes);
            if disk > 0 {
                out.set("disk", quoted(&bytes_text(disk)));
            }
            if self.resources.gpus > 0 {
                out.set("gpus", self.resources.gpus.to_string());
            }
        });
    }

    /// As much as is asked for, and as what lies in memory needs.
    fn memory(&self, options: &Options) -> u64 {
        let tmpfs = self.volumes.iter().filter_map(|volume| match volume.kind {
            VolumeKind::Tmpfs(size) => Some(size),
            _ => None,
        });
        let sizes =
            self.container.tmpfs.values().copied().chain(self.container.shm_size).chain(tmpfs);
        let least = sizes.max().unwrap_or(0);
        self.resources.memory.unwrap_or(options.memory).max(least).max(1 << 20)
    }

    fn write_container(&self, out: &mut Text) {
        let container = &self.container;
        out.section("[container]", |out| {
            if let Some(entrypoint) = &container.entrypoint {
                out.set("entrypoint", list(entrypoint));
            }
            if let Some(args) = &container.args {
                out.set("args", list(args));
            }
            out.text("user", container.user.as_deref());
            out.text("workdir", container.workdir.as_deref());
            out.text("hostname", container.hostname.as_deref());
            if container.init {
                out.set("init", "true");
            }
            if container.read_only {
                out.set("read_only", "true");
            }
            if !container.tmpfs.is_empty() {
                let each = |(path, size): (&String, &u64)| {
                    format!("{} = {}", quoted(path), quoted(&bytes_text(*size)))
                };
                let all: Vec<_> = container.tmpfs.iter().map(each).collect();
                out.set("tmpfs", format!("{{ {} }}", all.join(", ")));
            }
            out.text("shm_size", container.shm_size.map(bytes_text).as_deref());
            if let Some(pids) = container.pids {
                out.set("pids", pids.to_string());
            }
            if !container.ulimits.is_empty() {
                let each =
                    |(kind, limit): (&String, &String)| format!("{kind} = {}", quoted(limit));
                let all: Vec<_> = container.ulimits.iter().map(each).collect();
                out.set("ulimits", format!("{{ {} }}", all.join(", ")));
            }
            out.text("stop_signal", container.stop_signal.as_deref());
            out.text("stop_timeout", container.stop_timeout.map(time_text).as_deref());
            if !container.cap_drop.is_empty() {
                out.set("capabilities.drop", list(&container.cap_drop));
            }
            if !container.cap_add.is_empty() {
                out.set("capabilities.add", list(&container.cap_add));
            }
        });
    }

    fn write_network(&self, out: &mut Text) {
        for port in &self.ports {
            out.section("[[port]]", |out| {
                out.set("name", quoted(&port.name()));
                out.set("container", port.container.to_string());
                if port.udp {
                    out.set("protocol", "\"udp\"");
                }
                match port.host {
                    Host::None => out.set("host", "\"none\""),
                    Host::Dynamic => out.set("host", "\"dynamic\""),
                    Host::Number(number) => out.set("host", number.to_string()),
                }
            });
        }
        for link in &self.links {
            out.section("[[link]]", |out| {
                out.set("job", quoted(&link.job));
                out.set("port", quoted(&link.port));
                out.set("host", quoted(&link.host));
                out.set("listen", link.listen.to_string());
            });
        }
        for after in &self.after {
            out.section("[[after]]", |out| {
                out.set("job", quoted(&after.job));
                out.set("is", quoted(after.is));
            });
        }
    }

    fn write_volumes(&self, out: &mut Text) {
        for volume in &self.volumes {
            out.section("[[volume]]", |out| {
                if volume.kind == VolumeKind::Host {
                    out.line(format!("# For {}.", line(&volume.was)));
                }
                out.set("name", quoted(&volume.name));
                out.set("mount", quoted(&volume.mount));
                match volume.kind {
                    VolumeKind::Host => out.set("kind", "\"host\""),
                    VolumeKind::Ephemeral(size) => {
                        out.set("kind", "\"ephemeral\"");
                        out.set("size", quoted(&bytes_text(size)));
                    }
                    VolumeKind::Tmpfs(size) => {
                        out.set("kind", "\"tmpfs\"");
                        out.set("size", quoted(&bytes_text(size)));
                    }
                }
                if volume.read_only {
                    out.set("read_only", "true");
                }
            });
        }
    }

    fn write_rules(&self, out: &mut Text) {
        let restart = &self.restart;
        out.section("[restart]", |out| {
            if let Some(mode) = restart.mode.filter(|_| !self.kind.ends()) {
                out.set("mode", quoted(mode));
                if mode != "never" {
                    if let Some(attempts) = restart.attempts {
                        out.set("attempts", attempts.to_string());
                    }
                    out.text("interval", restart.interval.map(time_text).as_deref());
                    out.text("delay", restart.delay.map(time_text).as_deref());
                }
            }
        });
        if let Some(health) = &self.health {
            out.section("[health]", |out| write_health(out, health));
        }
        out.section("[update]", |out| {
            if let Some(most) = self.update.max_parallel {
                out.set("max_parallel", most.to_string());
            }
            out.text("min_healthy", self.update.min_healthy.map(time_text).as_deref());
            if let Some(revert) = self.update.auto_revert {
                out.set("auto_revert", revert.to_string());
            }
        });
        out.section("[placement]", |out| {
            if !self.allow.is_empty() {
                out.set("allow", list(&self.allow));
            }
            if !self.deny.is_empty() {
                out.set("deny", list(&self.deny));
            }
            let apart = self.anti_affinity.filter(|_| self.kind != Kind::System);
            out.text("anti_affinity", apart);
            match self.organisations.as_slice() {
                [] if self.seals() => out.line("# organisations = [\"...\"]"),
                [] => {}
                [one] if one == "any" => out.set("organisations", "\"any\""),
                names => out.set("organisations", list(names)),
            }
        });
    }
}

fn write_sealed(out: &mut Text, header: &str, sealed: &Sealed) {
    out.section(header, |out| {
        match &sealed.target {
            Target::Path { path, mode } => {
                out.set("path", quoted(path));
                if let Some(mode) = mode {
                    out.set("mode", quoted(&format!("{mode:04o}")));
                }
            }
            Target::Variable(name) => out.set("env", quoted(name)),
        }
        out.set("from", source(&sealed.from));
    });
}

fn source(from: &From) -> String {
    match from {
        From::File(path) => format!("{{ file = {} }}", quoted(path)),
        From::Variable(name) => format!("{{ env = {} }}", quoted(name)),
    }
}

fn write_health(out: &mut Text, health: &Health) {
    match &health.probe {
        Probe::Command(command) => out.set("probe", format!("{{ command = {} }}", list(command))),
        Probe::Tcp(port) => out.set("probe", format!("{{ tcp = {{ port = {port} }} }}")),
        Probe::Http { port, path } => {
            let path = quoted(path);
            out.set("probe", format!("{{ http = {{ port = {port}, path = {path} }} }}"));
        }
    }
    out.set("interval", quoted(&time_text(health.interval)));
    out.set("timeout", quoted(&time_text(health.timeout)));
    out.set("retries", health.retries.to_string());
    if health.start_period > 0 {
        out.set("start_period", quoted(&time_text(health.start_period)));
    }
    if health.restart {
        out.set("unhealthy", "\"restart\"");
    }
}
