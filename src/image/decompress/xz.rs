//! xz streams, one after the other, with padding between them. Files of several blocks (`xz -T`, the default of new releases) are
//! decoded by several threads.

use std::io::{self, BufRead, ErrorKind, Read};

use liblzma::stream::{Action, MtStreamBuilder, Status, Stream};

/// The largest dictionary that xz can write is 1.5 GiB; nothing in use needs more than 64 MiB.
const MEMORY_LIMIT: u64 = 2 << 30;

/// Memory for blocks that are decoded at once, beyond which threads wait. `xz -9 -T` makes blocks of 192 MiB.
const MEMORY_LIMIT_THREADS: u64 = 1 << 30;

/// All streams of `R` as one.
pub(super) struct Streams<R> {
    input: R,
    /// `None` between streams.
    stream: Option<Stream>,
    threads: u32,
}

impl<R: BufRead> Streams<R> {
    /// * `threads`: the most that decode at once.
    pub(super) fn new(input: R, threads: u32) -> Self {
        Self { input, stream: None, threads }
    }

    /// Skips the padding before a stream. False at the end of the input.
    fn next_stream(&mut self) -> io::Result<bool> {
        loop {
            let bytes = self.input.fill_buf()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            let found = zeros < bytes.len();
            self.input.consume(zeros);
            if found {
                let mut builder = MtStreamBuilder::new();
                builder.threads(self.threads.max(1));
                builder.memlimit_threading(MEMORY_LIMIT_THREADS).memlimit_stop(MEMORY_LIMIT);
                self.stream = Some(builder.decoder()?);
                return Ok(true);
            }
        }
    }
}

impl<R: BufRead> Read for Streams<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if self.stream.is_none() && !self.next_stream()? {
                return Ok(0);
            }
            let Some(stream) = &mut self.stream else { return Ok(0) };
            let input = self.input.fill_buf()?;
            let ended = input.is_empty();
            let (from, to) = (stream.total_in(), stream.total_out());
            let status = stream.process(input, buf, if ended { Action::Finish } else { Action::Run });
            let consumed = (stream.total_in() - from) as usize;
            let made = (stream.total_out() - to) as usize;
            self.input.consume(consumed);
            // What was decoded before the damage is handed out first; the stream repeats its error.
            if made > 0 {
                if matches!(status, Ok(Status::StreamEnd)) {
                    self.stream = None;
                }
                return Ok(made);
            }
            match status? {
                Status::StreamEnd => self.stream = None,
                _ if ended => return Err(ErrorKind::UnexpectedEof.into()),
                _ if consumed == 0 => return Err(io::Error::new(ErrorKind::InvalidData, "no progress")),
                _ => {}
            }
        }
    }
}
