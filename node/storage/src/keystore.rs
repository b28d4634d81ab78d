//! Secrets on disk: encrypted with a passphrase (age, scrypt) from the first write, written to a
//! temporary file that is made durable and then renamed, never over an existing file.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use age::{
    scrypt,
    secrecy::{ExposeSecret, SecretString},
};
use rand::{RngCore, rngs::OsRng};
use veil_committee::key_share::{KeyShare, KeyShareError};
use veil_protocol_spec::identity::{InvalidSecretKey, SecretIdentity};
use zeroize::{Zeroize, Zeroizing};

use crate::durable::{WriteNewError, write_new};

/// A passphrase, and whether it was made up by this program.
#[derive(Clone)]
pub struct Passphrase {
    secret: SecretString,
    random: bool,
}

impl core::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Passphrase(<redacted>)")
    }
}

/// Only the owner reads a secret.
const SECRET_MODE: u32 = 0o600;
/// Scrypt work factor for passphrases of 256 random bits, which need no stretching.
const RANDOM_WORK_FACTOR: u8 = 10;
/// Scrypt work factor for passphrases that people choose: 256 MiB of memory and about a second, as the age tool
/// takes. It is not measured: on a busy machine a measured one would be weak.
pub const WORK_FACTOR: u8 = 18;
/// Files that take more are refused, as by the age tool: 4 GiB of memory.
const MAX_WORK_FACTOR: u8 = 22;

/// How long a command may take that prints a passphrase: a person may have to touch a token.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks whether it has ended.
const COMMAND_POLL: Duration = Duration::from_millis(20);
/// What is read of what it prints.
const MAX_COMMAND_OUTPUT: usize = 4096;

/// Why a secret cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    /// There is a file already.
    #[error("{0} exists already; it is not overwritten: move it away or choose another folder")]
    Exists(PathBuf),
    /// The file cannot be written or read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The passphrase is wrong or the file is damaged.
    #[error("{path} does not decrypt: wrong passphrase, or the file is damaged ({detail})")]
    Decrypt {
        /// Which file.
        path: PathBuf,
        /// What age said.
        detail: String,
    },
    /// Encryption failed.
    #[error("{path} cannot be encrypted: {detail}")]
    Encrypt {
        /// Which file.
        path: PathBuf,
        /// What age said.
        detail: String,
    },
    /// The content is no usable key share.
    #[error("{path}: {source}")]
    KeyShare {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: KeyShareError,
    },
    /// The content is no identity.
    #[error("{0} holds no identity: make one with `veil identity new`")]
    Identity(PathBuf),
    /// Whoever asks for so much work, or so little, wants to be waited for, or guessed.
    #[error("a passphrase is stretched with a work factor of 10 to {MAX_WORK_FACTOR}, not {0}")]
    WorkFactor(u8),
    /// What it prints is never shown, nor its arguments.
    #[error("`{program}`, which is to print the passphrase: {detail}")]
    Command {
        /// Its name.
        program: String,
        /// What went wrong.
        detail: String,
    },
    /// An empty passphrase file.
    #[error("{0} holds no passphrase")]
    EmptyPassphrase(PathBuf),
}

impl From<WriteNewError> for KeystoreError {
    fn from(error: WriteNewError) -> Self {
        match error {
            WriteNewError::Exists(path) => Self::Exists(path),
            WriteNewError::Io { path, source } => Self::Io { path, source },
        }
    }
}

impl Passphrase {
    /// One given by a person.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { secret: SecretString::from(text), random: false }
    }

    /// The first line of a file, without blanks around it, and without a mark of byte order.
    ///
    /// # Errors
    /// [`KeystoreError::Io`], [`KeystoreError::EmptyPassphrase`].
    pub fn from_file(path: &Path) -> Result<Self, KeystoreError> {
        let text = fs::read_to_string(path).map(Zeroizing::new).map_err(|e| io_error(path, e))?;
        if fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o007 != 0) {
            tracing::warn!(?path, "every user of this machine may read the passphrase: chmod 600");
        }
        match text.trim_start_matches('\u{feff}').lines().next().map(str::trim) {
            Some(line) if !line.is_empty() => Ok(Self::new(line.to_owned())),
            _ => Err(KeystoreError::EmptyPassphrase(path.to_owned())),
        }
    }

    /// The first line that a command prints: a program and its arguments, without a shell. What it says on standard
    /// error goes to this process's own.
    ///
    /// # Errors
    /// [`KeystoreError::Command`].
    pub fn from_command(command: &[String]) -> Result<Self, KeystoreError> {
        let name = command.first().cloned().unwrap_or_default();
        let failed = |detail: &str| KeystoreError::Command {
            program: name.clone(),
            detail: detail.to_owned(),
        };
        let (program, arguments) = command.split_first().ok_or_else(|| failed("no command"))?;
        let mut started = Command::new(program);
        started.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = started.spawn().map_err(|error| failed(&error.to_string()))?;
        let (sender, printed) = mpsc::channel();
        if let Some(mut output) = child.stdout.take() {
            // Beside it: who prints more than a pipe holds would not end.
            thread::spawn(move || {
                let mut text = Zeroizing::new(Vec::with_capacity(MAX_COMMAND_OUTPUT));
                let read = output.by_ref().take(MAX_COMMAND_OUTPUT as u64).read_to_end(&mut text);
                let _ = sender.send(read.map(|_| text)); // nobody waits any more
                io::copy(&mut output, &mut io::sink())
            });
        }
        let begun = Instant::now();
        let status = loop {
            match child.try_wait().map_err(|error| failed(&error.to_string()))? {
                Some(status) => break status,
                None if begun.elapsed() < COMMAND_DEADLINE => thread::sleep(COMMAND_POLL),
                None => {
                    let _ = child.kill(); // it may have ended this moment
                    let _ = child.wait();
                    return Err(failed("it took longer than a minute, and was ended"));
                }
            }
        };
        if !status.success() {
            return Err(failed(&format!("it failed ({status})")));
        }
        let printed = printed.recv_timeout(COMMAND_DEADLINE.saturating_sub(begun.elapsed()));
        let text = printed.ok().and_then(Result::ok).ok_or_else(|| failed("it is not read"))?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        match std::str::from_utf8(line).map(str::trim) {
            Ok("") => Err(failed("it printed nothing")),
            Ok(line) => Ok(Self::new(line.to_owned())),
            Err(_) => Err(failed("it prints no UTF-8")),
        }
    }

    /// The passphrase itself, for a keystore of another form.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.secret.expose_secret()
    }

    /// 256 random bits as hexadecimal digits.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0u8; 32]);
        OsRng.fill_bytes(&mut *bytes);
        let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { secret: SecretString::from(text), random: true }
    }

    /// 32 bytes that take work to compute: scrypt with r = 8, p = 1, N = 2^`work` (`protocol-spec/backup.md`, step 2).
    ///
    /// # Errors
    /// [`KeystoreError::WorkFactor`], before anything is computed.
    pub fn stretch(&self, salt: &[u8; 32], work: u8) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
        let refused = |_| KeystoreError::WorkFactor(work);
        if !(RANDOM_WORK_FACTOR..=MAX_WORK_FACTOR).contains(&work) {
            return Err(KeystoreError::WorkFactor(work));
        }
        let params = ::scrypt::Params::new(work, 8, 1, 32).map_err(refused)?;
        let mut out = Zeroizing::new([0; 32]);
        let secret = self.secret.expose_secret().as_bytes();
        // Of 32 bytes there is no wrong length.
        ::scrypt::scrypt(secret, salt, &params, &mut *out)
            .map_err(|_| KeystoreError::WorkFactor(work))?;
        Ok(out)
    }

    /// Writes it to a file that only its owner can read.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub fn write(&self, path: &Path) -> Result<(), KeystoreError> {
        let mut line = Zeroizing::new(self.secret.expose_secret().as_bytes().to_vec());
        line.push(b'\n');
        Ok(write_new(path, SECRET_MODE, &line)?)
    }
}

fn io_error(path: &Path, source: io::Error) -> KeystoreError {
    KeystoreError::Io { path: path.to_owned(), source }
}

/// Encrypts and writes a secret.
///
/// # Errors
/// [`KeystoreError`].
pub fn write_secret(
    path: &Path,
    secret: &[u8],
    passphrase: &Passphrase,
) -> Result<(), KeystoreError> {
    let mut recipient = scrypt::Recipient::new(passphrase.secret.clone());
    let work_factor = if passphrase.random { RANDOM_WORK_FACTOR } else { WORK_FACTOR };
    recipient.set_work_factor(work_factor);
    let encrypted = age::encrypt(&recipient, secret).map_err(|error| KeystoreError::Encrypt {
        path: path.to_owned(),
        detail: error.to_string(),
    })?;
    Ok(write_new(path, SECRET_MODE, &encrypted)?)
}

/// Reads and decrypts a secret.
///
/// # Errors
/// [`KeystoreError`].
pub fn read_secret(
    path: &Path,
    passphrase: &Passphrase,
) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let encrypted = fs::read(path).map_err(|error| io_error(path, error))?;
    let mut identity = scrypt::Identity::new(passphrase.secret.clone());
    // Else what is too much is measured, and a node on a busy machine refuses its own files.
    identity.set_max_work_factor(MAX_WORK_FACTOR);
    age::decrypt(&identity, &encrypted).map(Zeroizing::new).map_err(|error| {
        KeystoreError::Decrypt { path: path.to_owned(), detail: error.to_string() }
    })
}

/// Writes a key share.
///
/// # Errors
/// [`KeystoreError`].
pub fn write_key_share(
    path: &Path,
    share: &KeyShare,
    passphrase: &Passphrase,
) -> Result<(), KeystoreError> {
    let mut bytes = share.to_bytes();
    let result = write_secret(path, &bytes, passphrase);
    bytes.zeroize();
    result
}

/// Reads a key share.
///
/// # Errors
/// [`KeystoreError`].
pub fn read_key_share(path: &Path, passphrase: &Passphrase) -> Result<KeyShare, KeystoreError> {
    let bytes = read_secret(path, passphrase)?;
    KeyShare::from_bytes(&bytes)
        .map_err(|source| KeystoreError::KeyShare { path: path.to_owned(), source })
}

/// First byte of a stored identity.
const IDENTITY_VERSION: u8 = 1;

/// Writes an identity.
///
/// # Errors
/// [`KeystoreError`].
pub fn write_identity(
    path: &Path,
    identity: &SecretIdentity,
    passphrase: &Passphrase,
) -> Result<(), KeystoreError> {
    // Reserved at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(33));
    bytes.push(IDENTITY_VERSION);
    bytes.extend_from_slice(identity.expose().as_slice());
    write_secret(path, &bytes, passphrase)
}

/// Reads an identity.
///
/// # Errors
/// [`KeystoreError`].
pub fn read_identity(
    path: &Path,
    passphrase: &Passphrase,
) -> Result<SecretIdentity, KeystoreError> {
    let bytes = read_secret(path, passphrase)?;
    let key = match bytes.split_first() {
        Some((&IDENTITY_VERSION, key)) => <&[u8; 32]>::try_from(key).ok(),
        _ => None,
    };
    let identity = key.ok_or(InvalidSecretKey).and_then(SecretIdentity::from_bytes);
    identity.map_err(|_| KeystoreError::Identity(path.to_owned()))
}

/// A new identity from the operating system's randomness.
#[must_use]
pub fn new_identity() -> SecretIdentity {
    let mut bytes = Zeroizing::new([0; 32]);
    loop {
        OsRng.fill_bytes(bytes.as_mut_slice());
        // All but one value in 2^128 is a key.
        if let Ok(identity) = SecretIdentity::from_bytes(&bytes) {
            return identity;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn secrets_round_trip_and_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.age");
        let passphrase = Passphrase::random();
        write_secret(&path, b"the secret", &passphrase).unwrap();
        assert_eq!(read_secret(&path, &passphrase).unwrap().as_slice(), b"the secret");
        let other = Passphrase::random();
        assert!(matches!(read_secret(&path, &other), Err(KeystoreError::Decrypt { .. })));
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(10).any(|window| window == b"the secret"));
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert!(matches!(read_secret(&path, &passphrase), Err(KeystoreError::Decrypt { .. })));
        }
        fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        assert!(matches!(read_secret(&path, &passphrase), Err(KeystoreError::Decrypt { .. })));
    }

    #[test]
    fn a_passphrase_is_what_a_person_means() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("passphrase.txt");
        for text in
            ["open sesame", "open sesame\r\n", " open sesame \nmore", "\u{feff}open sesame\n"]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(Passphrase::from_file(&path).unwrap().expose(), "open sesame", "{text:?}");
        }
        for text in ["", "\n", "\u{feff}\n", "  \nopen sesame"] {
            fs::write(&path, text).unwrap();
            let refused = Passphrase::from_file(&path);
            assert!(matches!(refused, Err(KeystoreError::EmptyPassphrase(_))), "{text:?}");
        }
    }

    #[test]
    fn the_work_does_not_depend_on_how_busy_the_machine_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.age");
        let passphrase = Passphrase::new("correct horse".into());
        write_secret(&path, b"the secret", &passphrase).unwrap();
        assert_eq!(read_secret(&path, &passphrase).unwrap().as_slice(), b"the secret");
        let bytes = fs::read(&path).unwrap();
        let head = String::from_utf8_lossy(&bytes);
        let stanza = head.lines().find(|line| line.starts_with("-> scrypt ")).unwrap();
        assert!(stanza.ends_with(" 18"), "{stanza}");
        // One that would take hours, and the memory of many machines, is refused unread.
        let before = &head[..head.find(stanza).unwrap() + stanza.len()];
        let hostile = format!("{}30", before.strip_suffix("18").unwrap());
        let rest = &bytes[before.len()..];
        fs::write(&path, [hostile.as_bytes(), rest].concat()).unwrap();
        let refused = read_secret(&path, &passphrase).unwrap_err().to_string();
        assert!(refused.contains("work parameter"), "{refused}");
    }

    #[test]
    fn a_secret_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.age");
        let passphrase = Passphrase::random();
        write_secret(&path, b"first", &passphrase).unwrap();
        let second = write_secret(&path, b"second", &passphrase);
        assert!(matches!(second, Err(KeystoreError::Exists(_))));
        assert_eq!(read_secret(&path, &passphrase).unwrap().as_slice(), b"first");
        let missing = folder.path().join("no such folder/file");
        let refused = write_secret(&missing, b"", &passphrase);
        assert!(matches!(refused, Err(KeystoreError::Io { .. })));
    }

    #[test]
    fn identities_round_trip_and_other_secrets_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let (path, passphrase) = (folder.path().join("identity.age"), Passphrase::random());
        let identity = new_identity();
        write_identity(&path, &identity, &passphrase).unwrap();
        assert_eq!(read_identity(&path, &passphrase).unwrap().public(), identity.public());
        for (name, wrong) in [("zero", &[1, 0][..]), ("version", &[2; 33]), ("empty", &[])] {
            let path = folder.path().join(name);
            write_secret(&path, wrong, &passphrase).unwrap();
            let refused = read_identity(&path, &passphrase);
            assert!(matches!(refused, Err(KeystoreError::Identity(_))), "{name}");
        }
    }

    /// The answer is that of Python's `hashlib.scrypt`.
    #[test]
    fn a_passphrase_is_stretched_as_others_do_it_and_only_within_bounds() {
        let passphrase = Passphrase::new("correct horse".into());
        let stretched = passphrase.stretch(&[7; 32], 10).unwrap();
        let hex: String = stretched.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "603af72676ab229919faa2457dee3e510bb445b9a0cfa86833b7d05f6f75cb03");
        for work in [0, 9, 23, 64, 255] {
            let refused = passphrase.stretch(&[7; 32], work).unwrap_err();
            assert!(matches!(refused, KeystoreError::WorkFactor(found) if found == work));
        }
    }

    #[test]
    fn a_command_gives_its_first_line_and_no_failure_shows_what_it_prints() {
        let command = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            Passphrase::from_command(&words)
        };
        let given = command(&["sh", "-c", "echo '  hunter2 '; yes | head -c 200000"]).unwrap();
        assert_eq!(given.expose(), "hunter2");
        for (words, says) in [
            (&["sh", "-c", "echo hunter2; exit 3"][..], "exit status: 3"),
            (&["sh", "-c", "echo"], "printed nothing"),
            (&["printf", "\\377\\n"], "UTF-8"),
            (&["/no/such/program"], "No such file"),
            (&[], "no command"),
        ] {
            let refused = command(words).unwrap_err().to_string();
            assert!(refused.contains(says) && !refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn printing_redacts() {
        assert_eq!(format!("{:?}", Passphrase::new("hunter2".into())), "Passphrase(<redacted>)");
    }
}
