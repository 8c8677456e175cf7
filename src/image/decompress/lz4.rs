//! LZ4 frames (what `lz4` and systemd-coredump write), one after the other, with skippable frames between them.
//!
//! The decoder of `lz4_flex` takes the end of its input for the end of the frame, so this reader tells it apart: inside a frame, the
//! end of the input is an error. And each frame has a decoder of its own, because it expects blocks as large as the first frame's.

use std::io::{self, BufRead, ErrorKind, Read};

use lz4_flex::frame::{Error, FrameDecoder};

/// All frames of `R` as one stream.
pub(super) struct Frames<R: BufRead> {
    /// Always there, but for the moment when it is replaced.
    decoder: Option<FrameDecoder<Strict<R>>>,
}

/// A reader whose end is an error, but not `UnexpectedEof`, which the decoder would swallow.
struct Strict<R> {
    inner: R,
    ended: bool,
}

impl<R: Read> Read for Strict<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buf)? {
            0 if !buf.is_empty() => {
                self.ended = true;
                Err(io::Error::other("ends inside a frame"))
            }
            n => Ok(n),
        }
    }
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(input: R) -> Self {
        Self { decoder: Some(FrameDecoder::new(Strict { inner: input, ended: false })) }
    }

    /// Goes on behind a frame that is read, or a skippable one of which `len` bytes follow. False at the end of the input.
    fn next_frame(&mut self, len: u32) -> io::Result<bool> {
        let Some(mut input) = self.decoder.take().map(FrameDecoder::into_inner) else { return Ok(false) };
        let skipped = io::copy(&mut (&mut input.inner).take(len.into()), &mut io::sink())?;
        let more = !input.inner.fill_buf()?.is_empty();
        self.decoder = Some(FrameDecoder::new(input));
        if skipped < len.into() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(more) }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let skip = match decoder.read(buf) {
                Ok(0) if !buf.is_empty() => 0,
                Ok(n) => return Ok(n),
                Err(_) if decoder.get_ref().ended => return Err(ErrorKind::UnexpectedEof.into()),
                Err(e) => skippable(&e).ok_or(e)?,
            };
            if !self.next_frame(skip)? {
                break;
            }
        }
        Ok(0)
    }
}

/// The length of the skippable frame that the decoder stopped at.
fn skippable(e: &io::Error) -> Option<u32> {
    match e.get_ref()?.downcast_ref()? {
        Error::SkippableFrame(len) => Some(*len),
        _ => None,
    }
}
