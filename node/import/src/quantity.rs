//! Quantities as the three formats write them, which each reads in its own way.

/// What a unit of bytes means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bytes {
    /// `512m`, `1gb`: 1024 of each other, in small or large letters.
    Compose,
    /// `512M` is a million, `512Mi` 1024 of 1024; `1e3`, `128974848000m`.
    Kubernetes,
}

/// A decimal number and its unit.
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.starts_with('.') && number.len() == 1 {
        return None;
    }
    // `1e3`, of Kubernetes.
    if let Some(exponent) = unit.strip_prefix(['e', 'E'])
        && let Ok(exponent) = exponent.trim_start_matches('+').parse::<i32>()
        && (-18..=18).contains(&exponent)
    {
        return number.parse::<f64>().ok().map(|number| (number * 10_f64.powi(exponent), ""));
    }
    number.parse().ok().map(|number: f64| (number, unit.trim()))
}

/// Rounded up, if it can be counted.
fn whole(number: f64) -> Option<u64> {
    // 2^53: every whole number below has a value of its own.
    (number.is_finite() && (0.0..9_007_199_254_740_992.0).contains(&number))
        .then(|| (number - 1e-9).ceil().max(0.0) as u64)
}

impl Bytes {
    pub(crate) fn parse(self, text: &str) -> Option<u64> {
        let (number, unit) = split(text)?;
        let lower = unit.to_ascii_lowercase();
        let factor: f64 = match self {
            Self::Compose => match lower.trim_end_matches('b').trim_end_matches('i') {
                "" => 1.0,
                "k" => 1024.0,
                "m" => 1_048_576.0,
                "g" => 1_073_741_824.0,
                "t" => 1_099_511_627_776.0,
                _ => return None,
            },
            // `MB` and `MiB` are how many write it, and mean the same.
            Self::Kubernetes => match unit.strip_suffix('B').unwrap_or(unit) {
                "" => 1.0,
                "m" => 0.001,
                "k" | "K" => 1e3,
                "M" => 1e6,
                "G" => 1e9,
                "T" => 1e12,
                "Ki" => 1024.0,
                "Mi" => 1_048_576.0,
                "Gi" => 1_073_741_824.0,
                "Ti" => 1_099_511_627_776.0,
                _ => return None,
            },
        };
        whole(number * factor)
    }
}

/// Thousandths of a core: `"0.5"`, `500m`.
pub(crate) fn millicores(text: &str) -> Option<u64> {
    match split(text)? {
        (number, "") => whole(number * 1000.0),
        (number, "m") => whole(number),
        _ => None,
    }
}

/// Seconds, rounded up: `1m30s`, `500ms`, `90`.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut rest) = (0.0, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let factor = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    whole(total)
}

/// The same, where a number alone counts seconds.
pub(crate) fn seconds_or_number(text: &str) -> Option<u64> {
    text.trim().parse().ok().or_else(|| seconds(text))
}

/// Bytes as a job file writes them.
pub(crate) fn bytes_text(bytes: u64) -> String {
    for (unit, name) in [(1 << 30, "Gi"), (1 << 20, "Mi")] {
        if bytes != 0 && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{}Mi", bytes.div_ceil(1 << 20))
}

/// CPU as a job file writes it.
pub(crate) fn cpu_text(millicores: u64) -> String {
    if millicores.is_multiple_of(1000) {
        (millicores / 1000).to_string()
    } else {
        format!("{millicores}m")
    }
}

/// Time as a job file writes it.
pub(crate) fn time_text(seconds: u64) -> String {
    match seconds {
        s if s != 0 && s.is_multiple_of(3600) => format!("{}h", s / 3600),
        s if s != 0 && s.is_multiple_of(60) => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_each_format_means_them() {
        for (text, bytes) in [
            ("512m", 512 << 20),
            ("1gb", 1 << 30),
            ("64K", 64 << 10),
            ("100", 100),
            ("1.5G", 3 << 29),
        ] {
            assert_eq!(Bytes::Compose.parse(text), Some(bytes), "{text}");
        }
        for (text, bytes) in [
            ("512M", 512_000_000),
            ("1Gi", 1 << 30),
            ("1e3", 1000),
            ("2k", 2000),
            ("1500m", 2),
            ("1MB", 1_000_000),
        ] {
            assert_eq!(Bytes::Kubernetes.parse(text), Some(bytes), "{text}");
        }
        for (text, cpu) in [("0.5", 500), ("500m", 500), ("2", 2000), (".25", 250), ("0.1", 100)] {
            assert_eq!(millicores(text), Some(cpu), "{text}");
        }
        for (text, time) in [("1m30s", 90), ("500ms", 1), ("2h", 7200), ("1.5s", 2)] {
            assert_eq!(seconds(text), Some(time), "{text}");
        }
        assert_eq!(seconds_or_number("90"), Some(90));
        for wrong in ["", "x", "1x", "-1", ".", "1e99", "99999999999999999999"] {
            assert_eq!(Bytes::Kubernetes.parse(wrong), None, "{wrong}");
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_written_is_rounded_up() {
        assert_eq!(bytes_text(512_000_000), "489Mi");
        assert_eq!((bytes_text(1 << 30), bytes_text(1)), ("1Gi".into(), "1Mi".into()));
        assert_eq!((cpu_text(1500), cpu_text(2000)), ("1500m".into(), "2".into()));
        assert_eq!(
            (time_text(90), time_text(120), time_text(0)),
            ("90s".into(), "2m".into(), "0s".into())
        );
    }
}
