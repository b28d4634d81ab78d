//! Encrypted JSON keystores of accounts: version 3 of the Web3 secret storage, as all common tools write it.
//!
//! Tools differ in what is beside the point, and all of that is read: upper and lower case of names (`Crypto` of geth's
//! first and of MyEtherWallet), a version as text, no id, no address, `0x` before digits, a mark of byte order, an iv
//! whose leading zeros were lost, keys of 31 bytes (leading zeros lost) and of 33 (one too many). What does not open is
//! refused by the name of the field. No file makes it panic, or takes memory or time without bound.

use std::{fs::File, io::Read as _, path::Path};

use aes_0_8::Aes128;
use ctr::{
    Ctr128BE,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use hmac::Hmac;
use scrypt::Params;
use serde_json::Value;
use sha2::Sha256;
use sha3::{Digest as _, Keccak256};
use zeroize::Zeroizing;

/// Bytes of the longest file that is read. A keystore has about 500.
const MAX_BYTES: usize = 64 << 10;
/// Bytes that scrypt may take. The most that tools use is 256 MiB.
const MAX_MEMORY: u64 = 1 << 30;
/// Rounds of scrypt's mixing, n times r times p: 16 times what geth asks for.
const MAX_MIXING: u64 = 16 * (1 << 18) * 8;
/// Iterations of PBKDF2. The most that tools use is 1,000,000.
const MAX_ITERATIONS: u64 = 1 << 24;

type Aes128Ctr = Ctr128BE<Aes128>;

/// The key of 32 bytes that a file holds.
///
/// # Errors
/// A sentence that says why it is not told.
pub fn read(path: &Path, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| error.to_string())?;
    open(&bytes, passphrase)
}

/// The key of 32 bytes that a keystore holds, or a sentence that says why it is not told.
fn open(bytes: &[u8], passphrase: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes, and is no keystore"));
    }
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let file: Value = serde_json::from_slice(bytes).map_err(|error| format!("no JSON: {error}"))?;
    let file = Field { path: String::new(), value: &file };
    match file.get("version").map(|version| version.number()) {
        Err(_) if file.get("encseed").is_ok() => {
            return Err("a wallet of the presale of 2014: import it with geth first".to_owned());
        }
        Ok(Ok(3)) => {}
        version => {
            let found = version?.map_or_else(|_| "of another form".to_owned(), |n| n.to_string());
            return Err(format!("`version` is {found}: 3 is the one that is read"));
        }
    }
    let crypto = file.get("crypto")?;
    let cipher = crypto.get("cipher")?;
    if !cipher.is("aes-128-ctr")? {
        return Err(cipher.says("another cipher than aes-128-ctr"));
    }
    let ciphertext = crypto.get("ciphertext")?;
    let mut secret = Zeroizing::new(ciphertext.bytes()?);
    if secret.len() > 64 {
        return Err(ciphertext.says("more than a key"));
    }
    let mac = crypto.get("mac")?.bytes()?;
    let iv = crypto.get("cipherparams")?.get("iv")?.padded::<16>()?;
    let derived = derive(&crypto, passphrase)?;
    let (key, authentic) = derived.split_at(16);
    if mac_of(authentic, &secret) != mac {
        return Err("the passphrase is another one, or the file was altered (`mac`)".to_owned());
    }
    Aes128Ctr::new(key.into(), &iv.into()).apply_keystream(&mut secret);
    // As a number, whatever zeros were lost or put before it.
    let zeros = secret.iter().take_while(|byte| **byte == 0).count();
    let digits = secret.get(zeros.max(secret.len().saturating_sub(32))..).unwrap_or_default();
    let lost = secret.len() - digits.len();
    if lost > zeros {
        return Err(format!("it holds {} bytes, and a key has 32", secret.len()));
    }
    let mut key = Zeroizing::new([0; 32]);
    for (to, from) in key.iter_mut().rev().zip(digits.iter().rev()) {
        *to = *from;
    }
    Ok(key)
}

fn mac_of(authentic: &[u8], ciphertext: &[u8]) -> Vec<u8> {
    Keccak256::new().chain_update(authentic).chain_update(ciphertext).finalize().to_vec()
}

/// What the passphrase becomes: the first half decrypts, the second authenticates.
fn derive(crypto: &Field<'_>, passphrase: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    let (kdf, parameters) = (crypto.get("kdf")?, crypto.get("kdfparams")?);
    let length = parameters.get("dklen")?;
    // Longer ones begin with the same bytes.
    if !(32..=1024).contains(&length.number()?) {
        return Err(length.says("fewer bytes than the 32 that are needed, or far more"));
    }
    let salt = parameters.get("salt")?.bytes()?;
    let mut derived = Zeroizing::new([0; 32]);
    if kdf.is("scrypt")? {
        let [n, r, p] = ["n", "r", "p"].map(|name| parameters.get(name));
        let (n, r, p) = (n?, r?.number()?, p?.number()?);
        let rounds = n.number()?;
        let mixing = rounds.checked_mul(r).and_then(|of| of.checked_mul(p));
        let memory = rounds.checked_mul(r).and_then(|of| of.checked_mul(128));
        if !rounds.is_power_of_two() || rounds < 2 {
            return Err(n.says("no power of two"));
        }
        if memory.is_none_or(|memory| memory > MAX_MEMORY)
            || mixing.is_none_or(|mixing| mixing > MAX_MIXING)
        {
            return Err(n.says("more work, with `r` and `p`, than any tool asks for"));
        }
        let [r, p] = [r, p].map(u32::try_from);
        let log_n = rounds.ilog2() as u8; // less than 64
        let parameters = r.ok().zip(p.ok()).and_then(|(r, p)| Params::new(log_n, r, p, 32).ok());
        let parameters = parameters.ok_or_else(|| {
            n.says("not what scrypt takes with these `r` and `p` (RFC 7914): write the file anew with `geth account update`")
        })?;
        scrypt::scrypt(passphrase.as_bytes(), &salt, &parameters, derived.as_mut_slice())
            .map_err(|error| error.to_string())?;
    } else if kdf.is("pbkdf2")? {
        let prf = parameters.get("prf")?;
        if !prf.is("hmac-sha256")? {
            return Err(prf.says("another function than hmac-sha256"));
        }
        let iterations = parameters.get("c")?;
        let count = iterations.number()?;
        let count =
            u32::try_from(count).ok().filter(|c| (1..=MAX_ITERATIONS).contains(&(*c).into()));
        let count =
            count.ok_or_else(|| iterations.says("no iteration, or more than any tool asks for"))?;
        pbkdf2::pbkdf2::<Hmac<Sha256>>(passphrase.as_bytes(), &salt, count, derived.as_mut_slice())
            .map_err(|error| error.to_string())?;
    } else {
        return Err(kdf.says("neither scrypt nor pbkdf2"));
    }
    Ok(derived)
}

/// A value in the file, and where it stands.
struct Field<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Field<'a> {
    /// What stands in it under a name, in whatever case.
    fn get(&self, name: &str) -> Result<Field<'a>, String> {
        let path =
            if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        let mut entries = self.value.as_object().into_iter().flatten();
        let found = entries.find(|(key, value)| key.eq_ignore_ascii_case(name) && !value.is_null());
        let (_, value) = found.ok_or_else(|| format!("there is no `{path}`: it is no keystore"))?;
        Ok(Field { path, value })
    }

    fn says(&self, what: &str) -> String {
        format!("`{}` is {what}", self.path)
    }

    fn text(&self) -> Result<&'a str, String> {
        self.value.as_str().ok_or_else(|| self.says("no text"))
    }

    fn is(&self, word: &str) -> Result<bool, String> {
        Ok(self.text()?.eq_ignore_ascii_case(word))
    }

    /// A number, or one as text.
    fn number(&self) -> Result<u64, String> {
        let number = self.value.as_u64().or_else(|| self.value.as_str()?.trim().parse().ok());
        number.ok_or_else(|| self.says("no whole number"))
    }

    fn digits(&self) -> Result<&'a str, String> {
        let text = self.text()?.trim();
        Ok(text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text))
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        hex::decode(self.digits()?).map_err(|_| self.says("no row of hexadecimal digits"))
    }

    /// A number of so many bytes, whose leading zeros may be missing.
    fn padded<const N: usize>(&self) -> Result<[u8; N], String> {
        let digits = self.digits()?;
        if digits.len() > 2 * N {
            return Err(self.says(&format!("longer than {N} bytes")));
        }
        let whole = format!("{digits:0>width$}", width = 2 * N);
        let mut bytes = [0; N];
        let decoded = hex::decode_to_slice(whole, &mut bytes);
        decoded.map_err(|_| self.says("no row of hexadecimal digits"))?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PASSPHRASE: &str = "right";
    const IV: [u8; 16] = [0x11; 16];

    /// A key that begins with no zero.
    fn key() -> [u8; 32] {
        core::array::from_fn(|i| i as u8 + 1)
    }

    /// A keystore by PBKDF2 that holds these bytes.
    fn holding(secret: &[u8], iv: [u8; 16]) -> Value {
        let salt = [0x22; 32];
        let mut derived = [0; 32];
        pbkdf2::pbkdf2::<Hmac<Sha256>>(PASSPHRASE.as_bytes(), &salt, 1000, &mut derived).unwrap();
        let (cipher_key, authentic) = derived.split_at(16);
        let mut ciphertext = secret.to_vec();
        Aes128Ctr::new(cipher_key.into(), &iv.into()).apply_keystream(&mut ciphertext);
        let mac = mac_of(authentic, &ciphertext);
        json!({
            "address": "00",
            "crypto": {
                "cipher": "aes-128-ctr",
                "cipherparams": { "iv": hex::encode(iv) },
                "ciphertext": hex::encode(ciphertext),
                "kdf": "pbkdf2",
                "kdfparams": { "c": 1000, "dklen": 32, "prf": "hmac-sha256", "salt": hex::encode(salt) },
                "mac": hex::encode(mac),
            },
            "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
            "version": 3,
        })
    }

    fn opened(file: &Value) -> Result<[u8; 32], String> {
        open(file.to_string().as_bytes(), PASSPHRASE).map(|key| *key)
    }

    fn plain() -> Value {
        holding(&key(), IV)
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut file = plain();
        *file.pointer_mut(pointer).unwrap() = value;
        file
    }

    /// The two vectors of the Web3 Secret Storage definition. scrypt's has n = 2^18 and r = 1, which RFC 7914 does not
    /// allow.
    #[test]
    fn the_definitions_own_vectors() {
        let secret = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
        let by_pbkdf2 = json!({
            "crypto": {
                "cipher": "aes-128-ctr",
                "cipherparams": { "iv": "6087dab2f9fdbbfaddc31a909735c1e6" },
                "ciphertext": "5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46",
                "kdf": "pbkdf2",
                "kdfparams": {
                    "c": 262_144,
                    "dklen": 32,
                    "prf": "hmac-sha256",
                    "salt": "ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd",
                },
                "mac": "517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2",
            },
            "id": "3198bc9c-6672-5ab3-d995-4942343ae5b6",
            "version": 3,
        });
        let found = open(by_pbkdf2.to_string().as_bytes(), "testpassword").unwrap();
        assert_eq!(hex::encode(*found), secret);
        let mut by_scrypt = by_pbkdf2;
        by_scrypt["crypto"]["kdf"] = json!("scrypt");
        by_scrypt["crypto"]["kdfparams"] = json!({
            "dklen": 32, "n": 262_144, "p": 8, "r": 1,
            "salt": "ab0c7876052600dd703518d6fc3fe8984592145b591fc8fb5c6d43190334ba19",
        });
        let refused = open(by_scrypt.to_string().as_bytes(), "testpassword").unwrap_err();
        assert!(refused.contains("crypto.kdfparams.n") && refused.contains("geth"), "{refused}");
    }

    #[test]
    fn what_tools_write_otherwise_opens() {
        let mut old = plain();
        let crypto = old.as_object_mut().unwrap().remove("crypto").unwrap();
        old["Crypto"] = crypto;
        let mut bare = plain();
        bare.as_object_mut().unwrap().retain(|name, _| name == "crypto" || name == "version");
        let mut without_iv_zeros = holding(&key(), [0; 16]);
        without_iv_zeros["crypto"]["cipherparams"]["iv"] = json!("0");
        let prefixed =
            with("/crypto/mac", json!(format!("0x{}", plain()["crypto"]["mac"].as_str().unwrap())));
        let longer = with("/crypto/kdfparams/dklen", json!(64));
        for file in [
            plain(),
            old,
            bare,
            prefixed,
            longer,
            without_iv_zeros,
            with("/version", json!("3")),
            with("/id", Value::Null),
        ] {
            assert_eq!(opened(&file), Ok(key()), "{file}");
        }
        let marked = format!("\u{feff}{}\n", plain());
        assert_eq!(open(marked.as_bytes(), PASSPHRASE).map(|key| *key), Ok(key()));
    }

    #[test]
    fn a_key_is_a_number() {
        let mut small = [0; 32];
        small[1..].copy_from_slice(&key()[1..]);
        assert_eq!(opened(&holding(&small[1..], IV)), Ok(small), "31 bytes");
        let longer = [&[0], &key()[..]].concat();
        assert_eq!(opened(&holding(&longer, IV)), Ok(key()), "33 bytes");
        let other = [&[1], &key()[..]].concat();
        assert!(opened(&holding(&other, IV)).unwrap_err().contains("33 bytes"));
        assert_eq!(opened(&holding(&[], IV)), Ok([0; 32]), "which is no key, as its caller says");
    }

    #[test]
    fn an_empty_passphrase_is_one() {
        assert!(open(plain().to_string().as_bytes(), "").unwrap_err().contains("passphrase"));
    }

    #[test]
    fn what_does_not_open_is_refused_by_its_field() {
        for (file, field) in [
            (with("/crypto/kdfparams/dklen", json!(16)), "crypto.kdfparams.dklen"),
            (with("/crypto/cipherparams/iv", json!("zz")), "crypto.cipherparams.iv"),
            (with("/crypto/cipherparams/iv", json!("11".repeat(17))), "crypto.cipherparams.iv"),
            (with("/crypto/cipher", json!("aes-128-cbc")), "crypto.cipher"),
            (with("/crypto/ciphertext", json!("123")), "crypto.ciphertext"),
            (with("/crypto/ciphertext", json!("12".repeat(100))), "crypto.ciphertext"),
            (with("/crypto/mac", json!("00")), "mac"),
            (with("/crypto/mac", json!(5)), "crypto.mac"),
            (with("/crypto/kdf", json!("argon2")), "crypto.kdf"),
            (with("/crypto/kdfparams/prf", json!("hmac-sha1")), "crypto.kdfparams.prf"),
            (with("/crypto/kdfparams/c", json!(0)), "crypto.kdfparams.c"),
            (with("/crypto/kdfparams/c", json!(u64::MAX)), "crypto.kdfparams.c"),
            (with("/version", json!(1)), "version"),
            (json!({ "encseed": "ab" }), "presale"),
            (json!([]), "version"),
            (json!({ "version": 3 }), "crypto"),
        ] {
            let refused = opened(&file).unwrap_err();
            assert!(refused.contains(field), "{field}: {refused}");
            assert!(!refused.contains(PASSPHRASE), "{refused}");
        }
        for (n, r, p) in [
            (3, 8, 1),
            (1 << 30, 8, 1),
            (1 << 18, 8, 64),
            (0, 8, 1),
            (u64::MAX, u64::MAX, 1),
            (1 << 10, 0, 1),
        ] {
            let mut file = with("/crypto/kdf", json!("scrypt"));
            file["crypto"]["kdfparams"] =
                json!({ "dklen": 32, "n": n, "r": r, "p": p, "salt": "22" });
            let refused = opened(&file).unwrap_err();
            assert!(refused.contains("crypto.kdfparams.n"), "{n} {r} {p}: {refused}");
        }
        for text in ["", "{", "null", "\u{feff}"] {
            assert!(open(text.as_bytes(), PASSPHRASE).is_err(), "{text}");
        }
        assert!(open(&vec![b' '; MAX_BYTES + 1], PASSPHRASE).unwrap_err().contains("65536"));
    }
}
