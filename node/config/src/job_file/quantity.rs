//! Quantities as people write them: "500m" of a core, "64Mi" of memory, "1m30s" of time.
//!
//! Numbers are decimal and exact; what is not whole in the smallest unit is rounded up.

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each message says what its fields are")]
pub enum QuantityError {
    /// Nothing is there.
    #[error("it is empty; write such as {example}")]
    Empty { example: &'static str },
    /// There are blanks around it.
    #[error("there are blanks around it: write {0:?}")]
    Blanks(String),
    /// It is below zero.
    #[error("{0} is negative")]
    Negative(String),
    /// It does not begin with a number.
    #[error("{text:?} is no number with a unit; write such as {example}")]
    Number { text: String, example: &'static str },
    /// There is no such unit.
    #[error("{unit:?} is no unit here: {known}")]
    Unit { unit: String, known: &'static str },
    /// The unit has another spelling, or several meanings.
    #[error("the unit {unit:?} can be misread: write {instead}")]
    Spelling { unit: String, instead: &'static str },
    /// A number without a unit would be nearly nothing.
    #[error("{number} bytes is hardly meant: add a unit, such as \"{number}Mi\"")]
    Bytes { number: u64 },
    /// Only whole ones are possible.
    #[error("{text} is not whole: {hint}")]
    Whole { text: String, hint: &'static str },
    /// It is beyond what can be counted.
    #[error("{0} is too large")]
    TooLarge(String),
}

/// What a quantity measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// CPU time; the smallest unit is a thousandth of a core.
    Cpu,
    /// Memory, disk, sizes of folders; the smallest unit is a byte.
    Bytes,
    /// Time; the smallest unit is a second.
    Time,
}

const KNOWN_BYTES: &str = "k, M, G, T (thousands, also kB, MB, GB, TB) and Ki, Mi, Gi, Ti (1024 of each \
                           other, also KiB, MiB, GiB, TiB) are known";
const KNOWN_TIME: &str = "s, m, h and d are known";

impl Measure {
    const fn example(self) -> &'static str {
        match self {
            Self::Cpu => "\"500m\" or \"0.5\"",
            Self::Bytes => "\"64Mi\" or \"1.5GB\"",
            Self::Time => "\"30s\" or \"1m30s\"",
        }
    }

    /// How many of the smallest unit this unit is.
    fn unit(self, unit: &str) -> Result<u64, QuantityError> {
        let refused = |known| QuantityError::Unit { unit: unit.to_owned(), known };
        let misread = |instead| QuantityError::Spelling { unit: unit.to_owned(), instead };
        match self {
            Self::Cpu => match unit {
                "m" => Ok(1),
                "" => Ok(1000),
                "M" => Err(misread("m, for thousandths of a core")),
                _ => Err(refused("a number alone means cores, and m thousandths of a core")),
            },
            Self::Bytes => match unit {
                "" | "B" => Ok(1),
                "k" | "kB" | "K" | "KB" => Ok(1_000),
                "M" | "MB" => Ok(1_000_000),
                "G" | "GB" => Ok(1_000_000_000),
                "T" | "TB" => Ok(1_000_000_000_000),
                "Ki" | "KiB" => Ok(1 << 10),
                "Mi" | "MiB" => Ok(1 << 20),
                "Gi" | "GiB" => Ok(1 << 30),
                "Ti" | "TiB" => Ok(1 << 40),
                _ => match unit.to_ascii_lowercase().trim_end_matches('b') {
                    "m" => Err(misread("Mi for 1,048,576 bytes, or M for a million")),
                    "g" => Err(misread("Gi for 1,073,741,824 bytes, or G for a thousand million")),
                    "t" => Err(misread("Ti for 1024 Gi, or T for a million million bytes")),
                    "ki" => Err(misread("Ki")),
                    "mi" => Err(misread("Mi")),
                    "gi" => Err(misread("Gi")),
                    "ti" => Err(misread("Ti")),
                    _ => Err(refused(KNOWN_BYTES)),
                },
            },
            Self::Time => match unit {
                "" | "s" => Ok(1),
                "m" => Ok(60),
                "h" => Ok(3600),
                "d" => Ok(86_400),
                _ => Err(refused(KNOWN_TIME)),
            },
        }
    }

    /// The quantity that `text` says, in the smallest unit, rounded up.
    ///
    /// # Errors
    /// [`QuantityError`].
    pub fn parse(self, text: &str) -> Result<u64, QuantityError> {
        let example = self.example();
        if text.trim().is_empty() {
            return Err(QuantityError::Empty { example });
        }
        if text.trim() != text {
            return Err(QuantityError::Blanks(text.trim().to_owned()));
        }
        if text.starts_with('-') {
            return Err(QuantityError::Negative(text.to_owned()));
        }
        let mut total: u64 = 0;
        let (mut rest, mut last) = (text, u64::MAX);
        while !rest.is_empty() {
            let wrong = || QuantityError::Number { text: text.to_owned(), example };
            let (number, after) = Decimal::begin(rest).ok_or_else(wrong)?;
            // "64 Mi" is how many write it.
            let after = after.strip_prefix(' ').unwrap_or(after);
            let end = after.find(|c: char| c.is_ascii_digit()).filter(|_| self == Self::Time);
            let (unit, after) = after.split_at(end.unwrap_or(after.len()));
            let factor = self.unit(unit)?;
            // "1h30m", not "30m1h" or "1m1m"; and only the last one may do without a unit.
            if factor >= last || unit.is_empty() && rest != text {
                return Err(wrong());
            }
            let too_large = || QuantityError::TooLarge(text.to_owned());
            let amount = number.times(factor).ok_or_else(too_large)?;
            total = total.checked_add(amount).ok_or_else(too_large)?;
            (rest, last) = (after, factor);
        }
        Ok(total)
    }

    /// The quantity as people write it: what [`parse`](Self::parse) reads again.
    #[must_use]
    pub fn format(self, amount: u64) -> String {
        let whole = |unit: u64| amount.is_multiple_of(unit);
        match self {
            Self::Cpu if whole(1000) => (amount / 1000).to_string(),
            Self::Cpu if whole(100) => format!("{}.{}", amount / 1000, amount % 1000 / 100),
            Self::Cpu => format!("{amount}m"),
            Self::Bytes if amount == 0 => "0".to_owned(),
            Self::Bytes => {
                let units =
                    [(1 << 40, "Ti"), (1 << 30, "Gi"), (1 << 20, "Mi"), (1 << 10, "Ki"), (1, "")];
                let unit = units.into_iter().find(|(unit, _)| whole(*unit));
                unit.map_or_else(String::new, |(unit, name)| format!("{}{name}", amount / unit))
            }
            Self::Time if amount == 0 => "0s".to_owned(),
            Self::Time => {
                let (mut text, mut rest) = (String::new(), amount);
                for (unit, name) in [(3600, 'h'), (60, 'm'), (1, 's')] {
                    if rest >= unit {
                        text += &format!("{}{name}", rest / unit);
                        rest %= unit;
                    }
                }
                text
            }
        }
    }
}

/// A decimal number, not negative.
#[derive(Clone, Copy)]
struct Decimal {
    digits: u128,
    /// Digits of it behind the point.
    fraction: u32,
}

impl Decimal {
    /// More digits than any quantity needs, and few enough to compute with.
    const MAX_DIGITS: usize = 18;

    /// The number that `text` begins with, and what follows.
    fn begin(text: &str) -> Option<(Self, &str)> {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, mut rest) = text.split_at(digits(text));
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            (fraction, rest) = after.split_at(digits(after));
            if fraction.is_empty() {
                return None;
            }
        }
        if whole.is_empty() {
            return None;
        }
        // Beyond what can be counted, it is too large in every unit.
        let clipped = whole.trim_start_matches('0');
        let digits = match clipped.len() + fraction.len() {
            0 => 0,
            n if n <= Self::MAX_DIGITS => format!("{clipped}{fraction}").parse().ok()?,
            _ if clipped.len() > Self::MAX_DIGITS => return Some((Self::HUGE, rest)),
            _ => return None,
        };
        Some((Self { digits, fraction: u32::try_from(fraction.len()).ok()? }, rest))
    }

    const HUGE: Self = Self { digits: u128::MAX >> 64, fraction: 0 };

    /// `None` beyond 2^63.
    fn times(self, factor: u64) -> Option<u64> {
        let product = self.digits.checked_mul(u128::from(factor))?;
        let rounded = product.div_ceil(10_u128.checked_pow(self.fraction)?);
        u64::try_from(rounded).ok().filter(|amount| *amount < 1 << 63)
    }
}

/// Seconds of a text such as `12h` or `30d`, for options of commands.
///
/// # Errors
/// In words.
pub fn seconds(text: &str) -> Result<u64, String> {
    Measure::Time.parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_quantities() {
        for (text, millicores) in
            [("500m", 500), ("0.5", 500), ("2", 2000), ("1.0001", 1001), ("0", 0), ("007", 7000)]
        {
            assert_eq!(Measure::Cpu.parse(text), Ok(millicores), "{text}");
        }
        for (text, bytes) in [
            ("64Mi", 64 << 20),
            ("512MB", 512_000_000),
            ("1Gi", 1 << 30),
            ("1.5Gi", 3 << 29),
            ("0.3Ki", 308),
            ("2 TiB", 2 << 40),
            ("1k", 1000),
            ("1048576", 1 << 20),
            ("0", 0),
        ] {
            assert_eq!(Measure::Bytes.parse(text), Ok(bytes), "{text}");
        }
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("1m30s", 90), ("1.5m", 90), ("2h", 7200), ("1d1h", 90_000)]
        {
            assert_eq!(Measure::Time.parse(text), Ok(seconds), "{text}");
        }
    }

    #[test]
    fn each_refusal_says_what_to_write() {
        let refused = |measure: Measure, text: &str| measure.parse(text).unwrap_err().to_string();
        for (measure, text, says) in [
            (Measure::Cpu, "", "\"500m\""),
            (Measure::Cpu, " 2", "write \"2\""),
            (Measure::Cpu, "-1", "negative"),
            (Measure::Cpu, "1M", "write m"),
            (Measure::Cpu, "500mi", "thousandths"),
            (Measure::Cpu, "half", "no number"),
            (Measure::Cpu, "1.", "no number"),
            (Measure::Cpu, ".5", "no number"),
            (Measure::Cpu, "1e3", "no unit"),
            (Measure::Cpu, "1m1m", "no unit"),
            (Measure::Bytes, "512m", "write Mi"),
            (Measure::Bytes, "1g", "write Gi"),
            (Measure::Bytes, "1gb", "write Gi"),
            (Measure::Bytes, "64mi", "write Mi"),
            (Measure::Bytes, "64mib", "write Mi"),
            (Measure::Bytes, "64 Mo", "are known"),
            (Measure::Bytes, " 2Gi", "write \"2Gi\""),
            (Measure::Bytes, "99999999999999999999", "too large"),
            (Measure::Bytes, "9999999Ti", "too large"),
            (Measure::Time, "1 minute", "are known"),
            (Measure::Time, "30m1h", "no number"),
            (Measure::Time, "1h30", "no number"),
            (Measure::Time, "1m1m", "no number"),
        ] {
            let refused = refused(measure, text);
            assert!(refused.contains(says), "{text:?}: {refused}");
        }
    }

    fn any_measure() -> impl Strategy<Value = Measure> {
        prop_oneof![Just(Measure::Cpu), Just(Measure::Bytes), Just(Measure::Time)]
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(measure in any_measure(), amount in 0u64..1 << 56) {
            for amount in [amount, amount % 100_000, amount & !0xf_ffff] {
                prop_assert_eq!(measure.parse(&measure.format(amount)), Ok(amount));
            }
        }

        #[test]
        fn noise_never_panics(measure in any_measure(), text in "[0-9a-zA-Z. -]{0,30}|\\PC{0,12}") {
            let _ = measure.parse(&text);
        }

        #[test]
        fn rounding_never_loses(measure in any_measure(), whole in 0u64..1 << 20, thousandths in 0u64..1000) {
            let unit = match measure { Measure::Cpu => "", Measure::Bytes => "Ki", Measure::Time => "h" };
            let least = measure.parse(&format!("{whole}{unit}")).unwrap();
            let amount = measure.parse(&format!("{whole}.{thousandths:03}{unit}")).unwrap();
            prop_assert!(least <= amount);
        }
    }
}
