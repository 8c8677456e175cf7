//! The report's lines about the books beside the totals: memory outside of the heap, garbage, finalizers, and the runtime's own
//! counters where they differ.

use std::fmt::{Result, Write};

use super::report::{human, printable};
use crate::aggregate::{Amount, Books, Busy, Check, Garbage, Held, Queues};

/// Types and sizes of garbage that the report names; the stats file has all.
const KINDS: usize = 5;

/// What goes right below the totals line.
///
/// * `verbose`: also the counters that are equal, and those that the runtime only estimates.
pub(super) fn write_books(out: &mut String, books: &Books, verbose: bool) -> Result {
    let beside = &books.beside;
    let stacks = beside.stacks.saturating_add(beside.thread_stacks);
    let internal = beside.runtime_internal();
    if stacks != 0 || internal != 0 {
        writeln!(
            out,
            "beside it: stacks {stacks} B, free heap pages {} B, released to the system {} B, runtime-internal {internal} B",
            beside.heap_free, beside.heap_released
        )?;
    }
    for check in books.checks.iter().filter(|c| verbose || (c.exact && c.differs())) {
        write_check(out, check)?;
    }
    write_garbage(out, &books.garbage)?;
    write_queues(out, &books.queues)
}

fn write_check(out: &mut String, check: &Check) -> Result {
    let Check { counter, unit, spans, runtime, note, .. } = check;
    if !check.differs() {
        return writeln!(out, "runtime counter {counter}: {runtime} {unit}, as the spans have it");
    }
    let difference = check.difference();
    writeln!(out, "runtime counter {counter}: {runtime} {unit}, the spans have {spans}: {difference:+} ({note})")
}

/// `N B (N objects)`.
fn amount(amount: Amount) -> String {
    let Amount { objects, bytes } = amount;
    let s = if objects == 1 { "" } else { "s" };
    format!("{bytes} B ({objects} object{s})")
}

fn write_garbage(out: &mut String, garbage: &Garbage) -> Result {
    if garbage.all.is_zero() {
        return Ok(());
    }
    write!(out, "unreachable: {}, {}", human(garbage.all.bytes), amount(garbage.all))?;
    let shares = [
        (garbage.unswept, "found dead by the last collection and not swept yet"),
        (garbage.finalizable, "with a finalizer that the next collection will queue"),
        (garbage.with_cleanup, "with a cleanup that the next collection will queue"),
    ];
    for (share, what) in shares.iter().filter(|(share, _)| !share.is_zero()) {
        write!(out, "; {} {what}", amount(*share))?;
    }
    writeln!(out)?;
    let types = garbage.types.iter().map(|t| {
        let of = Amount { objects: t.objects, bytes: t.bytes };
        (of, printable(&t.name))
    });
    let classes = garbage.classes.iter().map(|c| {
        let size = if c.slot_bytes == 0 { "large objects".to_owned() } else { format!("slots of {} B", c.slot_bytes) };
        (c.amount, format!("{size} {} pointers", if c.noscan { "without" } else { "with" }))
    });
    let mut kinds: Vec<(Amount, String)> = types.chain(classes).collect();
    kinds.sort_by_key(|(of, _)| u64::MAX - of.bytes);
    let rest: Amount = kinds.iter().skip(KINDS).map(|(of, _)| *of).sum();
    let mut parts: Vec<String> = kinds.iter().take(KINDS).map(|(of, what)| format!("{what} {}", amount(*of))).collect();
    if !rest.is_zero() {
        parts.push(format!("others {}", amount(rest)));
    }
    writeln!(out, "  it is: {}", parts.join(", "))
}

fn write_queues(out: &mut String, queues: &Queues) -> Result {
    let kept = [
        (queues.set_finalizers, "set finalizers", "keep"),
        (queues.set_cleanups, "set cleanups", "keep"),
        (queues.queued_finalizers, "queued finalizers", "hold"),
        (queues.queued_cleanups, "queued cleanups", "hold"),
    ];
    for (Held { records, held }, what, verb) in kept {
        // What is set keeps little in most programs; a queue is news even if it holds nothing.
        if !held.is_zero() || (records > 0 && verb == "hold") {
            writeln!(out, "{what}: {records}, {verb} {} that nothing nearer holds", amount(held))?;
        }
    }
    for Busy { goid, runs, state, held, shared, through } in &queues.goroutines {
        write!(out, "goroutine {goid} runs {runs} and is not idle ({}): its frames hold ", printable(state))?;
        let others = if *shared { ", without names that other goroutines have too" } else { "" };
        write!(out, "{}{others}", amount(*held))?;
        if through.is_empty() { writeln!(out)? } else { writeln!(out, ", most through {}", printable(through))? }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Beside, GarbageClass, TypeTotal};

    fn of(objects: u64, bytes: u64) -> Amount {
        Amount { objects, bytes }
    }

    fn text(books: &Books, verbose: bool) -> String {
        let mut text = String::new();
        write_books(&mut text, books, verbose).expect("text");
        text
    }

    #[test]
    fn nothing_to_say() {
        assert_eq!(text(&Books::default(), true), "");
    }

    #[test]
    fn garbage_in_its_kinds() {
        let ty = |name: &str, objects, bytes| TypeTotal { name: name.into(), objects, bytes };
        let garbage = Garbage {
            all: of(13, 9000),
            finalizable: of(1, 48),
            types: vec![ty("main.Big", 3, 6144), ty("main.\u{7}", 1, 1024)],
            classes: vec![
                GarbageClass { slot_bytes: 64, noscan: true, amount: of(8, 512) },
                GarbageClass { slot_bytes: 0, noscan: true, amount: of(1, 1320) },
            ],
            ..Garbage::default()
        };
        assert_eq!(
            text(&Books { garbage, ..Books::default() }, false),
            "unreachable: 8.8 KiB, 9000 B (13 objects); 48 B (1 object) with a finalizer that the next collection will queue\n  \
             it is: main.Big 6144 B (3 objects), large objects without pointers 1320 B (1 object), main.\\u{7} 1024 B (1 object), \
             slots of 64 B without pointers 512 B (8 objects)\n"
        );
    }

    #[test]
    fn counters_are_told_where_they_differ() {
        let check = |counter, runtime, exact| Check { counter, unit: "bytes", spans: 100, runtime, exact, note: "why" };
        let checks = vec![check("a", 100, true), check("b", 90, true), check("c", 130, false)];
        let books = Books { checks, beside: Beside { stacks: 1, ..Beside::default() }, ..Books::default() };
        let line = "beside it: stacks 1 B, free heap pages 0 B, released to the system 0 B, runtime-internal 0 B\n";
        let differs = "runtime counter b: 90 bytes, the spans have 100: -10 (why)\n";
        assert_eq!(text(&books, false), format!("{line}{differs}"));
        let equal = "runtime counter a: 100 bytes, as the spans have it\n";
        let estimate = "runtime counter c: 130 bytes, the spans have 100: +30 (why)\n";
        assert_eq!(text(&books, true), format!("{line}{equal}{differs}{estimate}"));
    }

    #[test]
    fn queues_and_who_is_busy() {
        let held = |records, objects, bytes| Held { records, held: of(objects, bytes) };
        let busy = Busy {
            goid: 7,
            runs: "finalizers",
            state: "chan receive".into(),
            held: of(2, 64),
            shared: true,
            through: "main.slow.o".into(),
        };
        let queues = Queues {
            set_finalizers: held(3, 0, 0),
            set_cleanups: held(1, 1, 24),
            queued_finalizers: held(19, 38, 1520),
            goroutines: vec![busy],
            ..Queues::default()
        };
        assert_eq!(
            text(&Books { queues, ..Books::default() }, false),
            "set cleanups: 1, keep 24 B (1 object) that nothing nearer holds\n\
             queued finalizers: 19, hold 1520 B (38 objects) that nothing nearer holds\n\
             goroutine 7 runs finalizers and is not idle (chan receive): its frames hold 64 B (2 objects), without names \
             that other goroutines have too, most through main.slow.o\n"
        );
    }
}
