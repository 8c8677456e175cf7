//! What an observer of the walk is told, against all pointers of the heap as the masks have them.

use super::heap::{Memory, Object};
use goref_fast::config::Config;
use goref_fast::image::Process;
use goref_fast::pipeline::model_and_walk_observed;
use goref_fast::progress::Progress;
use goref_fast::timing::Phases;
use goref_fast::traverse::observe::{Edge, Holder, ObjectId, Observer, Outcome};
use std::collections::HashSet;

/// Keeps everything.
struct Keep;

impl Observer for Keep {
    const EDGES: bool = true;
    type Shard = Vec<Edge>;
    fn edge(&self, state: &mut Vec<Edge>, edge: &Edge) {
        state.push(*edge);
    }
}

/// What is wrong with the edges of one dump.
pub fn check(process: &Process<'_>, config: &Config) -> Vec<String> {
    let walk = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        let mut phases = Phases::default();
        pool.install(|| {
            model_and_walk_observed(process, &process.image, config, &Keep, &Progress::silent(), &mut phases)
        })
        .expect("walk")
    };
    let (model, walked, _, edges) = walk(2);
    let mut wrong = Vec::new();
    if walk(1).3 != edges || walk(3).3 != edges {
        wrong.push("an observer sees another order with another number of threads".to_owned());
    }
    let memory = Memory { image: &process.image, heap: &model.heap, masks: &model.masks };
    let object = |id: ObjectId| {
        let (span, slot) = memory.heap.locate(id.shard, id.ordinal).expect("an ordinal of the shard");
        Object { addr: memory.heap.slot_addr(span, slot), span: span.0, slot }
    };
    let edges: Vec<Edge> = edges.into_iter().flatten().collect();
    let (mut won, mut by_root, mut by_object) = (HashSet::new(), HashSet::new(), HashSet::new());
    for edge in &edges {
        let target = object(edge.target);
        if edge.outcome == Outcome::Won && !won.insert(target) {
            wrong.push(format!("{target:?} was won twice"));
        }
        match edge.holder {
            Holder::Root(_) => by_root.insert((target, target)),
            Holder::Object(holder) => by_object.insert((object(holder), target)),
        };
    }
    if won.len() as u64 != walked.stats.objects {
        wrong.push(format!("{} objects were won, {} counted", won.len(), walked.stats.objects));
    }
    // Every pointer between two objects: told as such, or the holder's word came to the pool of words that no type explains.
    let mut pairs = HashSet::new();
    for &holder in &won {
        for at in memory.pointer_words(holder) {
            if let Some(target) = memory.object_at(memory.word(at)) {
                pairs.insert((holder, target));
            }
        }
    }
    let of_free = |target: &Object| memory.object_at(target.addr).is_none();
    let told = by_object.iter().filter(|(_, target)| !of_free(target));
    let invented: Vec<_> = told.filter(|pair| !pairs.contains(pair)).collect();
    let missing: Vec<_> = pairs.iter().filter(|p| !by_object.contains(p) && !by_root.contains(&(p.1, p.1))).collect();
    for (what, list) in [("told, but not in memory", invented), ("in memory, but not told", missing)] {
        if let Some((holder, target)) = list.first() {
            wrong.push(format!("{} edges are {what}, such as {:#x} -> {:#x}", list.len(), holder.addr, target.addr));
        }
    }
    wrong
}
