//! Lists allocated objects that the walk did not reach, and every word of the process that looks like a pointer to one.
use goref_fast::address::{Addr, AddrRange};
use goref_fast::config::{Config, Verbosity};
use goref_fast::image::{Image, Inputs, Process};
use goref_fast::model::heap::SpanId;
use goref_fast::progress::Progress;
use goref_fast::timing::Phases;
use std::path::PathBuf;

fn main() {
    let a: Vec<String> = std::env::args().collect();
    let config = Config {
        exe: PathBuf::from(&a[1]),
        core: PathBuf::from(&a[2]),
        output: "x".into(),
        threads: 2.try_into().unwrap(),
        max_depth: 256,
        max_stacks: 50000,
        fold: true,
        types: a.len() < 4,
        stats: None,
        tmpdir: None,
        verbosity: Verbosity::Quiet,
    };
    let inputs = Inputs::open(&config.exe, &config.core, None).unwrap();
    let process = Process::parse(&inputs).unwrap();
    let image: &dyn Image = &process.image;
    let (model, walked, _roots) =
        goref_fast::pipeline::model_and_walk(&process, image, &config, &Progress::silent(), &mut Phases::default())
            .unwrap();
    let heap = &model.heap;
    for s in heap.specials() {
        println!("{s:?}");
    }
    println!("{:?}", goref_fast::incident::Incidents::default());
    let mut missing = vec![];
    for (i, span) in heap.spans().iter().enumerate() {
        let id = SpanId(i as u32);
        for slot in 0..u32::from(span.nelems) {
            if heap.is_allocated(id, slot) && !walked.reached[span.shard() as usize].contains(span.slot_base + slot) {
                missing.push((heap.slot_addr(id, slot), span.elem_size(), span.span_class));
            }
        }
    }
    println!("{} unreached", missing.len());
    for &(addr, size, class) in missing.iter().take(40) {
        let mut buf = vec![0; size.min(64) as usize];
        let _ = image.read(Addr(addr), &mut buf);
        let words: Vec<_> = buf.chunks(8).map(|c| format!("{:x}", u64::from_le_bytes(c.try_into().unwrap()))).collect();
        println!("{addr:#x} size {size} class {class} words {words:?} {:?}", String::from_utf8_lossy(&buf));
        // holders: heap
        for (i, span) in heap.spans().iter().enumerate() {
            let id = SpanId(i as u32);
            let len = (u64::from(span.nelems) * span.elem_size()) as usize;
            let mut b = vec![0; len.min(1 << 26)];
            if image.read(Addr(span.start), &mut b).is_err() {
                continue;
            }
            for (w, c) in b.chunks_exact(8).enumerate() {
                let v = u64::from_le_bytes(c.try_into().unwrap());
                if v >= addr && v < addr + size {
                    let at = span.start + w as u64 * 8;
                    let slot = span.slot_of(at);
                    println!(
                        "   held by heap {at:#x} obj {:#x}+{} size {} class {} alloc {} reached {}",
                        heap.slot_addr(id, slot),
                        at - heap.slot_addr(id, slot),
                        span.elem_size(),
                        span.span_class,
                        heap.is_allocated(id, slot),
                        walked.reached[span.shard() as usize].contains(span.slot_base + slot)
                    );
                }
            }
        }
        // other mappings
        for f in std::fs::read_to_string("/dev/null").iter() {
            let _ = f;
        }
        let _ = AddrRange::default();
    }
}
