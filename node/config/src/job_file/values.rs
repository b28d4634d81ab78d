//! What single values of a job file mean.

use core::{fmt::Display, ops::RangeInclusive, str::FromStr};

use toml::de::DeValue;
use veil_protocol_spec::scheduling::Mebibytes;

use super::{
    document::{Parsed, Value},
    problem::Reason,
    quantity::{Measure, QuantityError},
};

pub(super) fn refused<T>(value: &Value<'_>, reason: impl Into<Reason>) -> Parsed<T> {
    Err((value.span(), reason.into()))
}

fn other_kind<T>(value: &Value<'_>, expected: &'static str) -> Parsed<T> {
    refused(value, Reason::Kind { found: value.get_ref().type_str(), expected })
}

pub(super) fn text<'a>(value: &'a Value<'a>) -> Parsed<&'a str> {
    value.get_ref().as_str().map_or_else(|| other_kind(value, "a text in quotes"), Ok)
}

pub(super) fn boolean(value: &Value<'_>) -> Parsed<bool> {
    value.get_ref().as_bool().map_or_else(|| other_kind(value, "true or false"), Ok)
}

/// A text that `T` parses.
pub(super) fn parsed<T: FromStr<Err: Display>>(value: &Value<'_>) -> Parsed<T> {
    let text = text(value)?;
    text.parse().or_else(|error: T::Err| refused(value, Reason::Value(error.to_string())))
}

/// A text that `T` is made of.
pub(super) fn made_of<T: TryFrom<String, Error: Display>>(value: &Value<'_>) -> Parsed<T> {
    let text = text(value)?.to_owned();
    text.try_into().or_else(|error: T::Error| refused(value, Reason::Value(error.to_string())))
}

/// A list, each entry of which `parse` reads.
pub(super) fn list<'a, T>(
    value: &'a Value<'a>,
    expected: &'static str,
    parse: impl Fn(&'a Value<'a>) -> Parsed<T>,
) -> Parsed<Vec<T>> {
    match value.get_ref().as_array() {
        Some(entries) => entries.iter().map(parse).collect(),
        None => other_kind(value, expected),
    }
}

pub(super) fn texts(value: &Value<'_>) -> Parsed<Vec<String>> {
    list(value, "a list of texts", |entry| text(entry).map(str::to_owned))
}

/// An inline table or section with keys of the operator's own, each of which `parse` reads.
pub(super) fn entries<'a, T>(
    value: &'a Value<'a>,
    expected: &'static str,
    parse: impl Fn(&'a str, &'a Value<'a>) -> Parsed<T>,
) -> Parsed<Vec<T>> {
    match value.get_ref().as_table() {
        Some(table) => table.iter().map(|(key, value)| parse(key.get_ref(), value)).collect(),
        None => other_kind(value, expected),
    }
}

/// One of some words.
pub(super) fn word<T: Copy>(value: &Value<'_>, words: &[(&'static str, T)]) -> Parsed<T> {
    let text = text(value)?;
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let word = text.to_owned();
            refused(
                value,
                Reason::Word { word, possible: one_of(words.iter().map(|(word, _)| *word)) },
            )
        }
    }
}

/// "a", "b" or "c".
pub(super) fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<_> = words.map(|word| format!("{word:?}")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// A whole number in `range`.
pub(super) fn whole<T>(value: &Value<'_>, range: RangeInclusive<T>) -> Parsed<T>
where
    T: Copy + PartialOrd + Into<u64> + TryFrom<u64>,
{
    let (min, max) = ((*range.start()).into(), (*range.end()).into());
    match (integer(value.get_ref()), value.get_ref()) {
        (Some(number), _) => {
            let inside = u64::try_from(number).ok().and_then(|n| T::try_from(n).ok());
            match inside.filter(|n| range.contains(n)) {
                Some(number) => Ok(number),
                None => refused(value, Reason::Range { value: number.to_string(), min, max }),
            }
        }
        (None, DeValue::Float(float)) => {
            let (text, hint) = (float.as_str().to_owned(), "a whole number is expected");
            refused(value, QuantityError::Whole { text, hint })
        }
        (None, DeValue::Integer(_)) => {
            refused(value, Reason::Range { value: "this number".to_owned(), min, max })
        }
        _ => other_kind(value, "a whole number"),
    }
}

/// A number of GPUs.
pub(super) fn devices(value: &Value<'_>) -> Parsed<u64> {
    if let DeValue::Float(float) = value.get_ref() {
        let (text, hint) = (float.as_str().to_owned(), "GPUs are given as whole devices");
        return refused(value, QuantityError::Whole { text, hint });
    }
    whole(value, 0..=u16::MAX).map(u64::from)
}

/// A quantity, in the smallest unit. A number without a unit counts in `unit` of the smallest ones; unless
/// that is the measure's own, it must be whole.
fn quantity(value: &Value<'_>, measure: Measure, own: Option<u64>) -> Parsed<u64> {
    let (text, quoted) = match value.get_ref() {
        DeValue::String(text) => (text.as_ref().to_owned(), true),
        DeValue::Integer(_) => match integer(value.get_ref()) {
            Some(number) => (number.to_string(), false),
            None => return refused(value, QuantityError::TooLarge("this number".to_owned())),
        },
        DeValue::Float(float) => match float.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => (number.to_string(), false),
            _ => return other_kind(value, "a quantity"),
        },
        _ => return other_kind(value, "a number, or a text with a number and a unit,"),
    };
    let bare = text.bytes().all(|b| b.is_ascii_digit());
    let amount = match own {
        Some(unit) if bare => {
            let number: Option<u64> = text.parse().ok().and_then(|n: u64| n.checked_mul(unit));
            number.ok_or_else(|| QuantityError::TooLarge(text.clone()))
        }
        Some(_) if !text.starts_with('-') && text.parse::<f64>().is_ok() => {
            let hint =
                "this key counts whole units of its own; add another one to the number, in quotes";
            Err(QuantityError::Whole { text: text.clone(), hint })
        }
        _ => measure.parse(&text),
    };
    match amount {
        Ok(number @ 1..0x10_0000)
            if measure == Measure::Bytes && own.is_none() && (bare || !quoted) =>
        {
            refused(value, QuantityError::Bytes { number })
        }
        Ok(amount) => Ok(amount),
        Err(error) => refused(value, error),
    }
}

/// CPU time in thousandths of a core.
pub(super) fn millicores(path: &str, value: &Value<'_>) -> Parsed<u64> {
    quantity(value, Measure::Cpu, path.ends_with("_millicores").then_some(1))
}

/// A size in bytes.
pub(super) fn bytes(path: &str, value: &Value<'_>) -> Parsed<u64> {
    let own = match path {
        path if path.ends_with("_mib") => Some(1 << 20),
        path if path.ends_with("_gib") => Some(1 << 30),
        _ => None,
    };
    quantity(value, Measure::Bytes, own)
}

/// A size in whole MiB, at least one.
pub(super) fn mebibytes(value: &Value<'_>) -> Parsed<Mebibytes> {
    let bytes = bytes("", value)?;
    let too_large = || QuantityError::TooLarge(Measure::Bytes.format(bytes));
    match Mebibytes::covering(bytes) {
        Some(size) => Ok(size),
        None if bytes == 0 => refused(value, Reason::Value("a size of 0 holds nothing".to_owned())),
        None => refused(value, too_large()),
    }
}

/// A time in seconds.
pub(super) fn seconds<T>(value: &Value<'_>, range: RangeInclusive<T>) -> Parsed<T>
where
    T: Copy + PartialOrd + Into<u64> + TryFrom<u64>,
{
    let seconds = quantity(value, Measure::Time, None)?;
    match T::try_from(seconds).ok().filter(|n| range.contains(n)) {
        Some(seconds) => Ok(seconds),
        None => {
            let (min, max) = ((*range.start()).into(), (*range.end()).into());
            refused(value, Reason::Range { value: format!("{seconds} s"), min, max })
        }
    }
}
