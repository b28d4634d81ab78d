//! `[env]`, `[[secret]]`, `[[file]]` and `[registry]`: what only the winners of a placement open.
//!
//! A job file says where secrets are; [`Sources::contents`] reads them, when the job is validated, planned or submitted.
//! Nothing of what it reads is in its errors.

use std::{
    env, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use toml::de::DeValue;
use veil_protocol_spec::{
    codec::Bytes,
    scheduling::{
        ContainerPath, ContentsError, FileMode, ImageReference, RegistryCredentials,
        SealedContents, SealedFile, SealedVariable, limits,
    },
};
use zeroize::Zeroizing;

use super::{
    document::{Parsed, Reader, Section, Value},
    problem::Reason,
    values::{entries, parsed, refused, text, word},
};
use crate::docker_login::{self, NoLogin};

/// No more of a file is read.
const MAX_FILE: u64 = limits::SEALED_FILE_BYTES as u64;

/// Where something secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// A file, relative to the job file.
    File(PathBuf),
    /// A variable of whoever submits.
    Variable(String),
}

/// What it becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    File(ContainerPath, FileMode),
    Variable(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Registry {
    /// As `docker login` left them.
    Docker,
    Account {
        username: String,
        password: Source,
    },
}

/// What a job file says of what is to be sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    env: Vec<(String, String)>,
    secrets: Vec<(Target, Source)>,
    registry: Option<Registry>,
}

/// Why what is to be sealed cannot be read. Nothing secret is in the messages.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum SourceError {
    /// A file is missing, or cannot be read.
    #[error("{path}, which is to be sealed for `{into}`: {source}")]
    File { path: PathBuf, into: String, source: io::Error },
    /// A file is longer than what can be sealed.
    #[error("{path}, which is to be sealed for `{into}`, has more than {MAX_FILE} bytes")]
    TooLarge { path: PathBuf, into: String },
    /// A file that becomes a variable is no text.
    #[error("{path}, which is to be sealed for variable `{into}`, is no text (UTF-8)")]
    NoText { path: PathBuf, into: String },
    /// A variable is not set.
    #[error("variable {name} is not set here, or is no text; it is to be sealed for `{into}`")]
    Variable { name: String, into: String },
    /// `docker login` has left no credentials.
    #[error("registry.from = \"docker\": {0}")]
    Docker(#[from] NoLogin),
    /// What was read cannot be sealed.
    #[error(transparent)]
    Contents(#[from] ContentsError),
}

impl Sources {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let env = reader.top("env", |value| {
            entries(value, "{ NAME = \"value\" }", |name, value| {
                Ok((name.to_owned(), plain(value)?))
            })
        });
        let mut secrets = Vec::new();
        for section in reader.sections("secret") {
            secrets.extend(secret(reader, section));
        }
        for section in reader.sections("file") {
            reader.require(section, "file.path", "path = \"/etc/app.conf\"");
            reader.require(section, "file.from", "from = { file = \"app.conf\" }");
            let path = reader.get(section, "file.path", parsed);
            let mode = reader.get(section, "file.mode", mode).unwrap_or(FileMode::READ_ONLY);
            let from = reader.get(section, "file.from", source);
            secrets.extend(path.map(|path| Target::File(path, mode)).zip(from));
        }
        let registry = registry(reader);
        Self { env: env.unwrap_or_default(), secrets, registry }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.env.is_empty() && self.secrets.is_empty() && self.registry.is_none()
    }

    /// How many variables there are: an engine keeps them.
    pub(super) fn variables(&self) -> usize {
        let in_env = |(target, _): &&(Target, Source)| matches!(target, Target::Variable(_));
        self.env.len() + self.secrets.iter().filter(in_env).count()
    }

    /// Reads it; files are relative to `folder`.
    pub(super) fn contents(
        &self,
        folder: &Path,
        image: &ImageReference,
    ) -> Result<SealedContents, SourceError> {
        let mut contents = SealedContents::default();
        for (name, value) in &self.env {
            contents.env.push(SealedVariable { name: name.clone(), value: value.clone() });
        }
        for (target, source) in &self.secrets {
            match target {
                Target::File(path, mode) => {
                    let content = Bytes(source.bytes(folder, path.as_str())?.to_vec());
                    contents.files.push(SealedFile { path: path.clone(), mode: *mode, content });
                }
                Target::Variable(name) => {
                    let value = source.text(folder, name)?.as_str().to_owned();
                    contents.env.push(SealedVariable { name: name.clone(), value });
                }
            }
        }
        contents.env.sort_by(|a, b| a.name.cmp(&b.name));
        contents.files.sort_by(|a, b| a.path.cmp(&b.path));
        contents.registry = match &self.registry {
            None => None,
            Some(Registry::Docker) => Some(docker_login::credentials(image.name())?),
            Some(Registry::Account { username, password }) => {
                let password = password.text(folder, "registry.password")?.as_str().to_owned();
                Some(RegistryCredentials { username: username.clone(), password })
            }
        };
        Ok(contents)
    }
}

impl Source {
    fn bytes(&self, folder: &Path, into: &str) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        match self {
            Self::File(path) => {
                let (path, into) = (folder.join(path), into.to_owned());
                // Reserved at once: a buffer that grows leaves copies behind.
                let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE as usize + 1));
                let read = fs::File::open(&path)
                    .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
                match read {
                    Err(source) => Err(SourceError::File { path, into, source }),
                    Ok(len) if len as u64 > MAX_FILE => Err(SourceError::TooLarge { path, into }),
                    Ok(_) => Ok(bytes),
                }
            }
            Self::Variable(name) => match env::var(name) {
                Ok(value) => Ok(Zeroizing::new(value.into_bytes())),
                Err(_) => Err(SourceError::Variable { name: name.clone(), into: into.to_owned() }),
            },
        }
    }

    /// Without the end of the last line, which editors add.
    fn text(&self, folder: &Path, into: &str) -> Result<Zeroizing<String>, SourceError> {
        let bytes = self.bytes(folder, into)?;
        match core::str::from_utf8(&bytes) {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(text);
                Ok(Zeroizing::new(text.strip_suffix('\r').unwrap_or(text).to_owned()))
            }
            Err(_) => {
                let path = match self {
                    Self::File(path) => folder.join(path),
                    Self::Variable(name) => name.into(),
                };
                Err(SourceError::NoText { path, into: into.to_owned() })
            }
        }
    }
}

/// A text, a number, or true or false.
fn plain(value: &Value<'_>) -> Parsed<String> {
    match value.get_ref() {
        DeValue::Integer(number) => Ok(number.as_str().to_owned()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Boolean(is) => Ok(is.to_string()),
        _ => text(value).map(str::to_owned),
    }
}

fn secret<'a>(reader: &mut Reader<'a>, section: Section<'a>) -> Option<(Target, Source)> {
    reader.require(section, "secret.from", "from = { file = \"db-password.txt\" }");
    let from = reader.get(section, "secret.from", source);
    if reader.has(section, "secret.env") {
        reader.refuse(section, &["secret.path", "secret.mode"], "no `env` beside it");
        let name = reader.get(section, "secret.env", |value| text(value).map(str::to_owned));
        return name.map(Target::Variable).zip(from);
    }
    reader.require(section, "secret.path", "path = \"/run/secrets/db\"");
    let path = reader.get(section, "secret.path", parsed);
    let mode = reader.get(section, "secret.mode", mode).unwrap_or(FileMode::READ_ONLY);
    path.map(|path| Target::File(path, mode)).zip(from)
}

fn registry(reader: &mut Reader<'_>) -> Option<Registry> {
    let root = reader.root();
    let docker = reader.top("registry.from", |value| word(value, &[("docker", ())]));
    let username = reader.top("registry.username", |value| text(value).map(str::to_owned));
    let password = reader.top("registry.password", source);
    if reader.has(root, "registry.from") {
        let only_with = "no registry.from beside it";
        reader.refuse(root, &["registry.username", "registry.password"], only_with);
        return docker.map(|()| Registry::Docker);
    }
    if reader.has(root, "registry.username") || reader.has(root, "registry.password") {
        reader.require(root, "registry.username", "username = \"robot\"");
        reader.require(root, "registry.password", "password = { file = \"token.txt\" }");
    }
    Some(Registry::Account { username: username?, password: password? })
}

/// `{ file = "path" }` or `{ env = "NAME" }`.
fn source(value: &Value<'_>) -> Parsed<Source> {
    let form = "{ file = \"path\" } or { env = \"NAME\" }";
    let said = entries(value, form, |key, value| match key {
        "file" => text(value).map(|path| Source::File(path.into())),
        "env" => text(value).map(|name| Source::Variable(name.to_owned())),
        _ => refused(value, Reason::Value(format!("`{key}` is none of its keys: write {form}"))),
    })?;
    match <[Source; 1]>::try_from(said) {
        Ok([one]) => Ok(one),
        Err(_) => refused(value, Reason::Value(format!("write one: {form}"))),
    }
}

/// `"0440"`, as `chmod` takes it.
fn mode(value: &Value<'_>) -> Parsed<FileMode> {
    let digits = text(value)?;
    let octal =
        digits.bytes().all(|b| (b'0'..=b'7').contains(&b)) && (3..=4).contains(&digits.len());
    let bits = octal.then(|| u16::from_str_radix(digits, 8).ok()).flatten();
    match bits.and_then(|bits| FileMode::try_from(bits).ok()) {
        Some(mode) => Ok(mode),
        None => {
            refused(value, Reason::Value("a mode is octal digits, \"0000\" to \"0777\"".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_file::{JobFile, JobFileError};

    const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn job(rest: &str, folder: &Path) -> Result<JobFile, JobFileError> {
        let text = format!(
            "name = \"app\"\nimage = \"r.example/app@sha256:{DIGEST}\"\n[resources]\ncpu = 1\nmemory = \"64Mi\"\n\
             [placement]\norganisations = [\"Acme\"]\n{rest}"
        );
        JobFile::parse(&text).map(|job| job.in_folder(folder.to_owned()))
    }

    #[test]
    fn what_is_to_be_sealed_is_read_beside_the_job_file() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("db.txt"), "hunter2\n").unwrap();
        fs::write(folder.path().join("app.conf"), b"a = \xff\n").unwrap();
        let rest = "[env]\nTZ = \"Europe/Berlin\"\nWORKERS = 4\nDEBUG = false\n\
            [[secret]]\npath = \"/run/secrets/db\"\nfrom = { file = \"db.txt\" }\nmode = \"0400\"\n\
            [[secret]]\nenv = \"DB\"\nfrom = { file = \"db.txt\" }\n\
            [[secret]]\nenv = \"A_PATH\"\nfrom = { env = \"PATH\" }\n\
            [[file]]\npath = \"/etc/app.conf\"\nfrom = { file = \"app.conf\" }\n\
            [registry]\nusername = \"robot\"\npassword = { file = \"db.txt\" }";
        let job = job(rest, folder.path()).unwrap();
        assert!(job.seals());
        let contents = job.contents().unwrap();
        let env: Vec<_> =
            contents.env.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
        let path = env::var("PATH").unwrap();
        let expected = [
            ("A_PATH", path.as_str()),
            ("DB", "hunter2"),
            ("DEBUG", "false"),
            ("TZ", "Europe/Berlin"),
            ("WORKERS", "4"),
        ];
        assert_eq!(env, expected);
        let files: Vec<_> = contents
            .files
            .iter()
            .map(|file| (file.path.as_str(), file.mode.bits(), file.content.0.as_slice()))
            .collect();
        let expected: [(&str, u32, &[u8]); 2] =
            [("/etc/app.conf", 0o444, b"a = \xff\n"), ("/run/secrets/db", 0o400, b"hunter2\n")];
        assert_eq!(files, expected, "files are as they are");
        let registry = contents.registry.as_ref().unwrap();
        assert_eq!((registry.username.as_str(), registry.password.as_str()), ("robot", "hunter2"));
        assert!(job.remarks()[0].contains("5 variables"), "{:?}", job.remarks());
    }

    #[test]
    fn arguments_and_limits_are_sealed_if_the_file_says_so() {
        let whole = |more: &str| {
            let text = format!(
                "name = \"app\"\nimage = \"r.example/app@sha256:{DIGEST}\"\n[container]\nargs = [\"--token=hunter2\"]\n\
                 {more}\n[placement]\norganisations = \"any\"\n"
            );
            JobFile::parse(&text).unwrap()
        };
        let clear = "[resources]\ncpu = 1\nmemory = \"64Mi\"\n";
        let job = whole(&format!("sealed = true\n{clear}"));
        assert!(job.seals() && job.seals_arguments() && !job.encrypts());
        let contents = job.contents().unwrap();
        let public = contents.public(job.check().unwrap());
        assert!(public.args.is_empty(), "{:?}", public.args);
        assert_eq!(contents.applied(&public), job.check().unwrap());
        let job = whole(&format!("{clear}encrypted = true"));
        assert!(job.seals() && job.encrypts() && !job.seals_arguments());
        assert!(job.contents().unwrap().is_empty(), "limits are sealed with their seed");
        let job = whole(&format!("{clear}encrypted = false"));
        assert!(!job.seals());
    }

    #[test]
    fn a_job_without_secrets_seals_nothing() {
        let job = job("", Path::new("/")).unwrap();
        assert!(!job.seals() && job.contents().unwrap().is_empty() && job.remarks().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named_and_nothing_of_it_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("large"), vec![b'x'; 262_145]).unwrap();
        fs::write(folder.path().join("half"), vec![b'x'; 200_000]).unwrap();
        fs::write(folder.path().join("binary"), b"hunter2\xff").unwrap();
        let secret = |path: &str, from: &str| {
            format!("[[secret]]\npath = \"{path}\"\nfrom = {{ file = \"{from}\" }}\n")
        };
        let in_env = |from: &str| format!("[[secret]]\nenv = \"DB\"\nfrom = {from}\n");
        for (rest, says) in [
            (secret("/a", "missing"), "missing, which is to be sealed for `/a`"),
            (secret("/a", "large"), "more than 262144 bytes"),
            (secret("/a", "half") + &secret("/b", "half"), "at most 327680"),
            (secret("/a", "half") + &secret("/a", "half"), "`/a` is there twice"),
            (secret("/proc/a", "half"), "no file can be put on"),
            (in_env("{ file = \"binary\" }"), "is no text"),
            (in_env("{ env = \"VEIL_NOT_SET\" }"), "VEIL_NOT_SET is not set"),
            ("[registry]\nfrom = \"docker\"".to_owned(), "docker login r.example"),
        ] {
            let refused = job(&rest, folder.path()).unwrap().contents().unwrap_err().to_string();
            assert!(refused.contains(says), "{rest}: {refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn a_section_that_is_wrong_is_named() {
        for (rest, says) in [
            ("[[secret]]\npath = \"/a\"", "from = { file"),
            ("[[secret]]\nfrom = { file = \"a\" }", "path = \"/run/secrets/db\""),
            ("[[secret]]\nenv = \"A\"\npath = \"/a\"\nfrom = { file = \"a\" }", "no `env`"),
            ("[[secret]]\npath = \"/a\"\nfrom = { file = \"a\", env = \"b\" }", "write one"),
            ("[[secret]]\npath = \"/a\"\nfrom = { url = \"a\" }", "none of its keys"),
            ("[[secret]]\npath = \"/a\"\nfrom = { file = \"a\" }\nmode = \"0999\"", "octal"),
            ("[secret]\npath = \"/a\"", "[[secret]], a section for each secret,"),
            ("[[file]]\nfrom = { file = \"a\" }", "path = \"/etc/app.conf\""),
            ("[registry]\nusername = \"a\"", "password = { file"),
            ("[registry]\nfrom = \"docker\"\nusername = \"a\"", "no registry.from"),
            ("[env]\nA = [1]", "a text in quotes"),
        ] {
            let refused = job(rest, Path::new("/")).unwrap_err().to_string();
            assert!(refused.contains(says), "{rest}: {refused}");
        }
    }

    /// "A job with secrets names organisations (or `any`, which `plan` says aloud)."
    #[test]
    fn a_job_with_secrets_says_whose_workers_may_read_them() {
        let head =
            format!("image = \"a@sha256:{DIGEST}\"\n[resources]\ncpu = 1\nmemory = \"64Mi\"\n");
        let refused = JobFile::parse(&format!("{head}[env]\nA = \"b\"")).unwrap_err().to_string();
        assert!(refused.contains("`placement.organisations`"), "{refused}");
        let any = format!("{head}[env]\nA = \"b\"\n[placement]\norganisations = \"any\"");
        assert!(JobFile::parse(&any).is_ok());
    }
}
