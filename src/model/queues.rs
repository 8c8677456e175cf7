//! Roots outside of spans and stacks: queued finalizers and cleanups, open tiny blocks; and who works on those queues.

mod blocks;
mod goroutines;

pub(super) use blocks::Blocks;
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
        let at = &layout.finalizer;
        self.each_record(image, Addr(layout.globals.allfin), Blocks::finalizers(layout), |queues, record| {
            let word = |field: u64| image.read_u64(record.add(field));
            let (func, arg, fint, ot) = (word(at.func)?, word(at.arg)?, word(at.fint)?, word(at.ot)?);
            queues.finalizers.push(QueuedFinalizer { addr: record.0, func, arg, fint, ot });
            Ok(())
        });
    }

    fn read_cleanups(&mut self, image: &dyn Image, layout: &RuntimeLayout) {
        let (Some(queue), Some(queue_at), Some(blocks)) =
            (layout.globals.gc_cleanups, &layout.cleanup_queue, Blocks::cleanups(layout))
        else {
            return;
        };
        self.each_record(image, Addr(queue).add(queue_at.all), blocks, |queues, record| {
            let word = |field: u64| image.read_u64(record.add(field));
            let (call, func, arg) = match &layout.cleanup_fn {
                Some(at) => (word(at.call)?, word(at.func)?, word(at.arg)?),
                None => (0, word(0)?, 0),
            };
            queues.cleanups.push(QueuedCleanup { addr: record.0, call, func, arg });
            Ok(())
        });
    }

    /// Calls `f` with the address of each record.
    ///
    /// * `head`: where the pointer to the first block lies.
    fn each_record(
        &mut self,
        image: &dyn Image,
        head: Addr,
        blocks: Blocks,
        f: impl Fn(&mut Self, Addr) -> Result<(), ReadError>,
    ) {
        let Ok(head) = image.read_u64(head) else {
            return self.incidents.count("queue.unread");
        };
        let mut chain = Chain::new(head);
        while let Some(block) = chain.current() {
            let block = Addr(block);
            let Ok((next, count)) = blocks.read(image, block) else {
                return self.incidents.count("queue.unread");
            };
            if count > blocks.capacity() {
                return self.incidents.count("queue.bad_block");
            }
            for i in 0..count {
                if f(self, block.add(blocks.records + i * blocks.record_size)).is_err() {
                    self.incidents.count("queue.unread");
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
