//! Kubernetes quantities as bytes, and back in canonical form, so that what is applied equals what
//! the API server returns.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Why a quantity is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantityError(String);

impl std::fmt::Display for QuantityError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is not a size: write for example 512Mi or 4Gi", self.0)
    }
}

impl std::error::Error for QuantityError {}

/// Suffixes with their factor; the binary ones first, largest first within a kind.
const SUFFIXES: [(&str, u128); 11] = [
    ("Ei", 1 << 60),
    ("Pi", 1 << 50),
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];

/// Digits after the point that are looked at: more would be below one byte for every suffix.
const FRACTION_DIGITS_MAX: usize = 9;

/// The number of bytes of a size such as `1.5Gi`, rounded up.
///
/// # Errors
/// When it is not a positive size, or does not fit in 63 bits.
pub fn as_bytes(quantity: &Quantity) -> Result<u64, QuantityError> {
    let text = quantity.0.trim();
    let error = || QuantityError(quantity.0.clone());
    let (digits, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|rest| (rest, *factor)))
        .unwrap_or((text, 1));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(error());
    }
    let whole: u128 = whole.parse().map_err(|_| error())?;
    let kept = &fraction[..fraction.len().min(FRACTION_DIGITS_MAX)];
    let scale = 10_u128.pow(u32::try_from(kept.len()).map_err(|_| error())?);
    let part: u128 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| error())? };
    let bytes = whole
        .checked_mul(factor)
        .and_then(|b| b.checked_add((part * factor).div_ceil(scale)))
        .filter(|b| *b <= i64::MAX as u128)
        .ok_or_else(error)?;
    u64::try_from(bytes).map_err(|_| error())
}

/// A number of bytes in the canonical form of Kubernetes: the largest binary suffix that divides it.
#[must_use]
pub fn from_bytes(bytes: u64) -> Quantity {
    let binary = &SUFFIXES[..6];
    let fitting = binary.iter().find(|(_, f)| bytes > 0 && u128::from(bytes).is_multiple_of(*f));
    Quantity(match fitting {
        Some((suffix, factor)) => format!("{}{suffix}", u128::from(bytes) / factor),
        None => bytes.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("1k", 1000),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("64Mi", 67_108_864),
            ("4G", 4_000_000_000),
            ("0.5Ki", 512),
        ] {
            assert_eq!(as_bytes(&Quantity(text.into())), Ok(bytes), "{text}");
        }
        for text in ["", "Gi", "-1Gi", "1GB", "1.Gi.", "a", "99999999Ei"] {
            assert!(as_bytes(&Quantity(text.into())).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn written_sizes_are_canonical() {
        for (bytes, text) in
            [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1_610_612_736, "1536Mi"), (1 << 32, "4Gi")]
        {
            assert_eq!(from_bytes(bytes).0, text);
        }
    }
}
