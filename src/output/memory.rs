//! Peak private memory of this process, for the stats file.
//!
//! The kernel keeps a high-water mark only for all resident pages (`VmHWM`), and that includes the mapped core, which is page
//! cache and no cost of ours. So a thread samples `RssAnon + VmSwap` of `/proc/self/status` (private pages, wherever they are)
//! every 20 ms and keeps the highest; a peak that lasts shorter can be missed. One sample costs some 20 µs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(20);

/// Samples until it is dropped.
#[derive(Debug)]
pub struct MemorySampler {
    peak: Arc<AtomicU64>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MemorySampler {
    /// Starts sampling. Without `/proc` or without a thread to run on, the peak stays unknown.
    #[must_use]
    pub fn start() -> Self {
        let peak = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = channel();
        let theirs = Arc::clone(&peak);
        let sampler = std::thread::Builder::new().name("memory sampler".into());
        let thread = sampler.spawn(move || sample_until(&stopped, &theirs)).ok();
        Self { peak, stop: Some(stop), thread }
    }

    /// The highest number of bytes seen so far, including right now.
    #[must_use]
    pub fn peak(&self) -> Option<u64> {
        sample(&self.peak);
        // Relaxed: a lone number that publishes nothing else.
        Some(self.peak.load(Ordering::Relaxed)).filter(|peak| *peak > 0)
    }
}

impl Drop for MemorySampler {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic over there loses a statistic, nothing else.
            let _ = thread.join();
        }
    }
}

fn sample_until(stopped: &Receiver<()>, peak: &AtomicU64) {
    loop {
        sample(peak);
        if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

fn sample(peak: &AtomicU64) {
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        peak.fetch_max(private_bytes(&status), Ordering::Relaxed);
    }
}

/// `RssAnon + VmSwap` of a `/proc/PID/status`.
fn private_bytes(status: &str) -> u64 {
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|n| n.trim().parse().ok());
        kib.unwrap_or(0u64).saturating_mul(1024)
    };
    field("RssAnon:").saturating_add(field("VmSwap:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_anonymous_and_swapped_pages() {
        let status = "VmHWM:\t  900 kB\nRssAnon:\t     120 kB\nRssFile:\t 700 kB\nVmSwap:\t      8 kB\n";
        assert_eq!(private_bytes(status), 128 * 1024);
        assert_eq!(private_bytes("garbage"), 0);
        assert_eq!(private_bytes("RssAnon: x kB\n"), 0);
    }

    #[test]
    fn sees_a_large_allocation_after_it_is_gone() {
        let sampler = MemorySampler::start();
        let block = vec![1u8; 64 << 20];
        let with = sampler.peak();
        drop(block);
        if let Some(with) = with {
            assert!(with >= 64 << 20, "{with}");
            assert!(sampler.peak() >= Some(with));
        }
    }
}
