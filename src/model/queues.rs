//! Roots outside of spans and stacks: queued finalizers and cleanups, open tiny blocks; and who works on those queues.

mod goroutines;

pub use goroutines::Runner;

use crate::address::{Addr, WORD};
use crate::image::{Image, ReadError};
use crate::model::chain::Chain;
use crate::model::layout::RuntimeLayout;
use crate::model::modules::Modules;

/// A record of the finalizer queue (`runtime.allfin`). The collector follows all four words.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct QueuedFinalizer {
    /// Address of the record.
    pub addr: u64,
    /// `fn`.
    pub func: u64,
    /// `arg`: the object; nil for a cleanup queued by Go 1.24.
    pub arg: u64,
    /// `fint`.
    pub fint: u64,
    /// `ot`.
    pub ot: u64,
}

/// A record of the cleanup queue (`runtime.gcCleanups`, 1.25+); fields the release lacks are 0.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct QueuedCleanup {
    /// Address of the record.
    pub addr: u64,
    /// `call` (1.26+).
    pub call: u64,
    /// `fn`.
    pub func: u64,
    /// `arg` (1.26+).
    pub arg: u64,
}

/// The open tiny block of a P.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TinyBlock {
    /// Index in `runtime.allp`.
    pub p: u32,
    /// Address of `mcache.tiny`.
    pub addr: u64,
    /// The block.
    pub block: u64,
}

/// All of them, in runtime order.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    /// Queued finalizers.
    pub finalizers: Vec<QueuedFinalizer>,
    /// Queued cleanups.
    pub cleanups: Vec<QueuedCleanup>,
    /// Open tiny blocks.
    pub tiny: Vec<TinyBlock>,
    /// The goroutines that run finalizers and cleanups.
    pub runners: Vec<Runner>,
    /// What could not be read.
    pub incidents: crate::incident::Incidents,
}

/// More Ps than `GOMAXPROCS` allows.
const MAX_PS: u64 = 1 << 20;
/// Bytes of a block of finalizers (`finBlockSize`) and of one of cleanups (`cleanupBlockSize`).
const FIN_BLOCK_SIZE: u64 = 4096;
const CLEANUP_BLOCK_SIZE: u64 = 512;

impl Queues {
    /// Reads the queues and every P's tiny block. Damage is counted; a release without a queue has an empty one.
    #[must_use]
    pub fn read(image: &dyn Image, layout: &RuntimeLayout, modules: &Modules) -> Self {
        let mut queues = Self { runners: goroutines::read(image, layout, modules), ..Self::default() };
        queues.read_finalizers(image, layout);
        queues.read_cleanups(image, layout);
        queues.read_tiny(image, layout);
        queues
    }

    fn read_finalizers(&mut self, image: &dyn Image, layout: &RuntimeLayout) {
        let (block_at, at) = (&layout.finblock, &layout.finalizer);
        let Ok(head) = image.read_u64(Addr(layout.globals.allfin)) else {
            return self.incidents.count("queue.unread");
        };
        let capacity = FIN_BLOCK_SIZE.saturating_sub(block_at.fin) / at.size.max(1);
        let mut chain = Chain::new(head);
        while let Some(block) = chain.current() {
            let block = Addr(block);
            let (Ok(next), Ok(cnt)) =
                (image.read_u64(block.add(block_at.alllink)), image.read_u32(block.add(block_at.cnt)))
            else {
                return self.incidents.count("queue.unread");
            };
            if u64::from(cnt) > capacity {
                return self.incidents.count("queue.bad_block");
            }
            for i in 0..u64::from(cnt) {
                let record = block.add(block_at.fin + i * at.size);
                let word = |field: u64| image.read_u64(record.add(field));
                match (word(at.func), word(at.arg), word(at.fint), word(at.ot)) {
                    (Ok(func), Ok(arg), Ok(fint), Ok(ot)) => {
                        self.finalizers.push(QueuedFinalizer { addr: record.0, func, arg, fint, ot });
                    }
                    _ => self.incidents.count("queue.unread"),
                }
            }
            if !chain.advance(next) {
                return self.incidents.count("queue.cycle");
            }
        }
    }

    fn read_cleanups(&mut self, image: &dyn Image, layout: &RuntimeLayout) {
        let (Some(queue), Some(queue_at), Some(block_at)) =
            (layout.globals.gc_cleanups, &layout.cleanup_queue, &layout.cleanup_block)
        else {
            return;
        };
        let Ok(head) = image.read_u64(Addr(queue).add(queue_at.all)) else {
            return self.incidents.count("queue.unread");
        };
        let size = layout.cleanup_fn.as_ref().map_or(WORD, |at| at.size.max(1));
        let capacity = CLEANUP_BLOCK_SIZE.saturating_sub(block_at.cleanups) / size;
        let mut chain = Chain::new(head);
        while let Some(block) = chain.current() {
            let block = Addr(block);
            let (Ok(next), Ok(n)) =
                (image.read_u64(block.add(block_at.alllink)), image.read_u32(block.add(block_at.n)))
            else {
                return self.incidents.count("queue.unread");
            };
            if u64::from(n) > capacity {
                return self.incidents.count("queue.bad_block");
            }
            for i in 0..u64::from(n) {
                let record = block.add(block_at.cleanups + i * size);
                let word = |field: u64| image.read_u64(record.add(field));
                let words = match &layout.cleanup_fn {
                    Some(at) => (word(at.call), word(at.func), word(at.arg)),
                    None => (Ok(0), word(0), Ok(0)),
                };
                match words {
                    (Ok(call), Ok(func), Ok(arg)) => {
                        self.cleanups.push(QueuedCleanup { addr: record.0, call, func, arg });
                    }
                    _ => self.incidents.count("queue.unread"),
                }
            }
            if !chain.advance(next) {
                return self.incidents.count("queue.cycle");
            }
        }
    }

    fn read_tiny(&mut self, image: &dyn Image, layout: &RuntimeLayout) {
        let allp = Addr(layout.globals.allp);
        let (Ok(array), Ok(len)) = (image.read_u64(allp), image.read_u64(allp.add(8))) else {
            return self.incidents.count("queue.unread");
        };
        if len > MAX_PS {
            return self.incidents.count("queue.bad_allp");
        }
        for p in 0..len as u32 {
            let read = || {
                let p_addr = image.read_u64(Addr(array).add(u64::from(p) * WORD))?;
                let mcache = if p_addr == 0 { 0 } else { image.read_u64(Addr(p_addr).add(layout.p.mcache))? };
                if mcache == 0 {
                    return Ok(None);
                }
                let addr = Addr(mcache).add(layout.mcache.tiny);
                let block = image.read_u64(addr)?;
                Ok::<_, ReadError>((block != 0).then_some(TinyBlock { p, addr: addr.0, block }))
            };
            match read() {
                Ok(tiny) => self.tiny.extend(tiny),
                Err(_) => self.incidents.count("queue.unread"),
            }
        }
    }
}
