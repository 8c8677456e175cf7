//! Which releases of Go this program was made for. Others are tried: what they lack is found out by name, field by field.

use std::ops::RangeInclusive;

/// Minor releases of Go 1.
const KNOWN: RangeInclusive<u32> = 17..=27;

/// A line for the report if `version` (`runtime.buildVersion`) is none of them; `None` too if it cannot be read.
pub(super) fn untested(version: &str) -> Option<String> {
    let (_, rest) = version.split_once("go1.")?;
    let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
    let known = digits.parse().is_ok_and(|minor| KNOWN.contains(&minor));
    (!known).then(|| {
        format!(
            "untested release: all that is needed of its runtime was found, but only Go 1.{} to 1.{} are known",
            KNOWN.start(),
            KNOWN.end()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::untested;

    #[test]
    fn by_minor_release() {
        for known in [
            "go1.17",
            "go1.27.3",
            "go1.26.6 X:nodwarf5",
            "go1.27-X:nogreenteagc",
            "devel go1.27-0123abc",
            "",
            "gccgo 14",
        ] {
            assert_eq!(untested(known), None, "{known}");
        }
        for other in ["go1.16.15", "go1.28", "go1.28rc1", "devel go1.29-0123abc", "go1.999999999999", "go1."] {
            assert!(untested(other).is_some_and(|line| line.contains("1.17 to 1.27")), "{other}");
        }
    }
}
