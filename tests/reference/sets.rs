//! Sets of objects and how they differ, told with what a reader needs to find the cause.

use super::dump::Dump;
use super::heap::{Memory, Object};
use goref_fast::address::Addr;
use goref_fast::model::heap::SpanId;
use goref_fast::roots::Roots;
use goref_fast::traverse::Walked;
use std::collections::HashSet;

/// The marks of the product.
pub fn of_walk(memory: Memory<'_>, walked: &Walked) -> HashSet<Object> {
    let mut set = HashSet::new();
    for (i, span) in memory.heap.spans().iter().enumerate() {
        let reached = &walked.reached[usize::from(span.shard())];
        for slot in 0..u32::from(span.nelems) {
            if reached.contains(span.slot_base + slot) {
                set.insert(Object { addr: span.start + u64::from(slot) * span.elem_size(), span: i as u32, slot });
            }
        }
    }
    set
}

/// All slots that are not free.
pub fn allocated(memory: Memory<'_>) -> HashSet<Object> {
    let mut set = HashSet::new();
    for (i, span) in memory.heap.spans().iter().enumerate() {
        for slot in 0..u32::from(span.nelems) {
            if memory.heap.is_allocated(SpanId(i as u32), slot) {
                set.insert(Object { addr: span.start + u64::from(slot) * span.elem_size(), span: i as u32, slot });
            }
        }
    }
    set
}

/// The allocated slots that the last collection did not leave: what was allocated since.
pub fn allocated_since_collection(memory: Memory<'_>) -> Vec<Object> {
    let is_new = |o: &Object| {
        let details = memory.heap.details(SpanId(o.span));
        let bits = memory.image.read_u8(Addr(details.alloc_bits + u64::from(o.slot) / 8)).expect("allocBits");
        o.slot < u32::from(details.free_index) && bits >> (o.slot % 8) & 1 == 0
    };
    let mut new: Vec<_> = allocated(memory).into_iter().filter(is_new).collect();
    new.sort_unstable();
    new
}

/// What is in `a` and not in `b`, by address.
pub fn minus(a: &HashSet<Object>, b: &HashSet<Object>) -> Vec<Object> {
    let mut only: Vec<_> = a.difference(b).copied().collect();
    only.sort_unstable();
    only
}

/// Whether an object was made by a collection and dropped by it, and so outlives it although nobody holds it: the closures that Go
/// 1.24's `unique` makes to clean its maps.
pub fn is_of_the_collection(dump: &Dump<'_, '_>, object: Object) -> bool {
    let memory = dump.memory();
    if memory.size(object) != 24 || memory.noscan(object) {
        return false;
    }
    let code = memory.word(object.addr);
    let name = dump.function(code).filter(|(entry, _)| *entry == code).map(|(_, name)| name).unwrap_or_default();
    // Maps of weak pointers are those of `unique`; the runtime walks them to drop what is gone.
    let map =
        ["internal/concurrent.(*HashTrieMap[", "internal/sync.(*HashTrieMap["].iter().any(|m| name.starts_with(m));
    let all = map && name.contains("weak.") && name.ends_with(".All.func1");
    all || (name.starts_with("unique.addUniqueMap[") && name.ends_with(".func1.1"))
}

/// Whether an object is the array of timers of a P: the scavenger's and the system monitor's timers come and go on their own.
pub fn is_timers_of_a_p(dump: &Dump<'_, '_>, object: Object) -> bool {
    let memory = dump.memory();
    // A slice of the P itself up to Go 1.22.
    let timers = || field(dump, "runtime.p", "timers");
    let Some(heap) = field(dump, "runtime.p", "timers.heap").or_else(timers) else { return false };
    let Some(allp) = variable(dump, "runtime.allp") else { return false };
    let (array, len) = (memory.word(allp), memory.word(allp + 8));
    (0..len.min(1024)).any(|i| memory.word(memory.word(array + i * 8).wrapping_add(heap)) == object.addr)
}

/// Whether an object is a record that a P keeps for the next use: of a defer (up to Go 1.21 the runtime's own calls while it crashes use
/// them), or of a goroutine that waited for a channel.
pub fn is_spare_record_of_a_p(dump: &Dump<'_, '_>, object: Object) -> bool {
    ["deferpool", "sudogcache"].iter().any(|pool| is_in_pool_of_a_p(dump, pool, object))
}

fn is_in_pool_of_a_p(dump: &Dump<'_, '_>, pool: &str, object: Object) -> bool {
    let memory = dump.memory();
    let Some(pool) = field(dump, "runtime.p", pool) else { return false };
    let Some(allp) = variable(dump, "runtime.allp") else { return false };
    let (array, len) = (memory.word(allp), memory.word(allp + 8));
    (0..len.min(1024)).any(|i| {
        let slice = memory.word(array + i * 8).wrapping_add(pool);
        let (records, len) = (memory.word(slice), memory.word(slice + 8));
        (0..len.min(1024)).any(|i| memory.word(records + i * 8) == object.addr)
    })
}

/// Takes out of `new` the objects of threads that started: each `m` of `runtime.allm`, youngest first, with what it points to (the
/// goroutines of its stacks, its buffers).
pub fn take_threads(dump: &Dump<'_, '_>, new: &mut Vec<Object>) -> Vec<Vec<Object>> {
    let memory = dump.memory();
    let mut threads = Vec::new();
    let Some(alllink) = field(dump, "runtime.m", "alllink") else { return threads };
    let mut m = variable(dump, "runtime.allm").map_or(0, |allm| memory.word(allm));
    for _ in 0..1024 {
        let Some(i) = memory.object_at(m).and_then(|m| new.iter().position(|o| *o == m)) else { break };
        let object = new.remove(i);
        let words = memory.pointer_words(object).into_iter();
        let held: Vec<Object> = words.filter_map(|at| memory.object_at(memory.word(at))).collect();
        let mut thread: Vec<_> = new.extract_if(.., |o| held.contains(o)).collect();
        thread.push(object);
        threads.push(thread);
        m = memory.word(m + alllink);
    }
    threads
}

fn field(dump: &Dump<'_, '_>, of: &str, path: &str) -> Option<u64> {
    Some(dump.types.field_path(dump.types.find(of)?, path)?.0)
}

fn variable(dump: &Dump<'_, '_>, name: &str) -> Option<u64> {
    let variable = dump.debug.variables.iter().find(|v| &*v.name == name)?;
    Some(variable.address.wrapping_add(dump.process.load_bias))
}

/// Size, class and first words of an object, and who holds it.
pub fn describe(memory: Memory<'_>, roots: &Roots, object: Object) -> String {
    let span = &memory.heap.spans()[object.span as usize];
    let mut bytes = [0u8; 32];
    let n = span.elem_size().min(32) as usize;
    let words = match memory.image.read(Addr(object.addr), &mut bytes[..n]) {
        Ok(()) => {
            bytes[..n].chunks(8).map(|c| c.iter().rev().map(|b| format!("{b:02x}")).collect::<String>()).collect()
        }
        Err(e) => vec![e.to_string()],
    };
    let holders = holders(memory, roots, object);
    format!(
        "{:#x}: {} bytes, span class {}, words [{}], held by {}",
        object.addr,
        span.elem_size(),
        span.span_class,
        words.join(" "),
        if holders.is_empty() { "nobody".to_owned() } else { holders.join(", ") }
    )
}

/// Root words and mask words of allocated objects that point into `object`; a few of them.
fn holders(memory: Memory<'_>, roots: &Roots, object: Object) -> Vec<String> {
    let hit = |word: u64| word >= object.addr && word < object.addr + memory.size(object);
    let mut found = Vec::new();
    for root in &roots.roots {
        if roots.pointers(root).any(hit) {
            found.push(format!("{:?} {}", root.stratum, roots.labels.frames(root.label).join(" -> ")));
        }
    }
    let mut all: Vec<_> = allocated(memory).into_iter().filter(|o| !memory.noscan(*o)).collect();
    all.sort_unstable();
    for holder in all {
        for at in memory.pointer_words(holder).into_iter().filter(|at| hit(memory.word(*at))) {
            found.push(format!("{:#x}+{} of {} bytes", holder.addr, at - holder.addr, memory.size(holder)));
        }
        if found.len() > 4 {
            break;
        }
    }
    found
}
