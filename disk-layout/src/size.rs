//! Sizes as people write them on a command line.

/// The text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Neither a number nor a number with a known unit.
    #[error("{0:?} is not a size: write bytes, or a number with K, M, G or T, such as 512M")]
    NotASize(String),
    /// More than 64 bits.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

/// Parses a size in bytes: `1048576`, `1024K`, `512M`, `2G`, `1T`, also `512MiB`. The units are powers of 1024.
///
/// # Errors
/// [`SizeError`].
pub fn parse_size(text: &str) -> Result<u64, SizeError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
        "" if unit.is_empty() => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(SizeError::NotASize(text.to_owned())),
    };
    if number.is_empty() {
        return Err(SizeError::NotASize(text.to_owned()));
    }
    let number: u64 = number.parse().map_err(|_| SizeError::TooLarge(text.to_owned()))?;
    number.checked_mul(1 << shift).ok_or_else(|| SizeError::TooLarge(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_people_write() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1024),
            ("512M", 536_870_912),
            ("512MiB", 536_870_912),
            ("2G", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "1 G", "1g", "1MB", "iB", "1iB", "0x10", "1G1"] {
            assert_eq!(parse_size(text), Err(SizeError::NotASize(text.to_owned())));
        }
        for text in ["18446744073709551616", "16777216T"] {
            assert_eq!(parse_size(text), Err(SizeError::TooLarge(text.to_owned())));
        }
    }
}
