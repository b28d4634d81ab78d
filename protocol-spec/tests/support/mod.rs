//! Comparing with the files in `vectors/`.

use std::{env, fmt::Write as _, fs, path::Path};

use serde_json::Value;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Compares `actual` with `vectors/<file>`, or writes it with `VEIL_BLESS=1`.
pub(crate) fn compare(file: &str, actual: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    if env::var_os("VEIL_BLESS").is_some_and(|v| v == "1") {
        fs::write(&path, format!("{actual:#}\n")).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(*actual, expected, "{file} changed; see the head of this test");
}
