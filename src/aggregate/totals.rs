//! The books: every byte of the heap in use is accounted for once.
//!
//! `heap in use = reachable + unreachable + free slots + span overhead (+ unread)`.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::Serialize;

/// A number of objects (slots) and their bytes. Sums saturate: a damaged core must not wrap them into small numbers.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Objects, or slots where no object lives.
    pub objects: u64,
    /// Bytes of the slots (`mspan.elemsize` each).
    pub bytes: u64,
}

impl Amount {
    /// True if both numbers are zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { objects: self.objects.saturating_add(other.objects), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

/// Where the heap went. Each field is counted on its own, so that [`Totals::balanced`] is a real check.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All in-use spans: their slots, and the bytes of their pages.
    pub heap_in_use: Amount,
    /// Objects that the walk reached with a known path of types.
    pub typed: Amount,
    /// Objects that the walk reached only through pointers that no type explains (`$sub_objects$`).
    pub sub_objects: Amount,
    /// Allocated slots that the walk did not reach: garbage not yet swept, or an error of ours.
    pub unreachable: Amount,
    /// Slots without an object.
    pub free_slots: Amount,
    /// Span tails, in-span bitmaps, mark bits: bytes of in-use spans that are no slot.
    pub span_overhead_bytes: u64,
    /// Slots and bytes of in-use spans that the core lacks.
    pub unread: Amount,
    /// The part of reachable that only conservatively scanned words hold: a share, not a term of the sum.
    pub conservative: Amount,
}

impl Totals {
    /// Everything that the walk reached; equals the sum over all samples of the profile.
    #[must_use]
    pub fn reachable(&self) -> Amount {
        self.typed + self.sub_objects
    }

    /// The right side of the equation.
    #[must_use]
    pub fn explained(&self) -> Amount {
        let overhead = Amount { objects: 0, bytes: self.span_overhead_bytes };
        self.reachable() + self.unreachable + self.free_slots + overhead + self.unread
    }

    /// True if heap in use is explained to the byte and to the slot.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.heap_in_use == self.explained()
    }
}

/// The totals line, on one line, the same wherever it is shown.
impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Amount { objects, bytes } = self.heap_in_use;
        write!(f, "heap in use {bytes} B ({objects} slots)")?;
        let Amount { objects, bytes } = self.reachable();
        write!(f, " = reachable {bytes} B ({objects} objects")?;
        write!(f, "; typed {} B ({} objects)", self.typed.bytes, self.typed.objects)?;
        write!(f, ", $sub_objects$ {} B ({} objects))", self.sub_objects.bytes, self.sub_objects.objects)?;
        write!(f, " + unreachable {} B ({} objects)", self.unreachable.bytes, self.unreachable.objects)?;
        write!(f, " + free slots {} B ({} slots)", self.free_slots.bytes, self.free_slots.objects)?;
        write!(f, " + span overhead {} B", self.span_overhead_bytes)?;
        if !self.unread.is_zero() {
            write!(f, " + unread {} B ({} slots)", self.unread.bytes, self.unread.objects)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(objects: u64, bytes: u64) -> Amount {
        Amount { objects, bytes }
    }

    /// 2 pages of 128 slots of 64 bytes, 3 of them at the end overhead: 61 slots per page do not matter here, only the sum.
    fn books() -> Totals {
        Totals {
            heap_in_use: amount(125, 8192),
            typed: amount(60, 3840),
            sub_objects: amount(5, 320),
            unreachable: amount(10, 640),
            free_slots: amount(50, 3200),
            span_overhead_bytes: 192,
            unread: amount(0, 0),
            ..Totals::default()
        }
    }

    #[test]
    fn balances_in_bytes_and_in_slots() {
        assert!(books().balanced());
        let mut wrong_bytes = books();
        wrong_bytes.span_overhead_bytes += 1;
        assert!(!wrong_bytes.balanced());
        let mut wrong_slots = books();
        wrong_slots.free_slots.objects -= 1;
        assert!(!wrong_slots.balanced());
        let mut unread = books();
        unread.unreachable = amount(0, 0);
        unread.unread = amount(10, 640);
        assert!(unread.balanced());
    }

    #[test]
    fn line_names_every_part() {
        let mut totals = books();
        assert_eq!(
            totals.to_string(),
            "heap in use 8192 B (125 slots) = reachable 4160 B (65 objects; typed 3840 B (60 objects), $sub_objects$ 320 B \
             (5 objects)) + unreachable 640 B (10 objects) + free slots 3200 B (50 slots) + span overhead 192 B"
        );
        totals.unread = amount(1, 64);
        assert!(totals.to_string().ends_with(" + unread 64 B (1 slots)"));
    }

    #[test]
    fn hostile_sums_saturate() {
        let huge = amount(u64::MAX, u64::MAX);
        assert_eq!(huge + amount(1, 1), huge);
    }
}
