//! Where the bytes of an archive come from: a file, or a stream that only goes
//! forward.

use std::io::{self, BufRead, BufReader, Read, Seek};

/// Something to read an archive from.
pub(super) trait Source: BufRead {
    /// Leaves out `distance` bytes, or goes back where that is possible.
    fn skip(&mut self, distance: i64) -> io::Result<()>;
}

impl<R: Read + Seek> Source for BufReader<R> {
    fn skip(&mut self, distance: i64) -> io::Result<()> {
        self.seek_relative(distance)
    }
}

/// A stream that only goes forward: what is left out is read all the same.
pub(super) struct Forward<R>(BufReader<R>);

impl<R: Read> Forward<R> {
    pub fn new(stream: R) -> Forward<R> {
        Forward(BufReader::with_capacity(64 << 10, stream))
    }
}

impl<R: Read> Read for Forward<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> BufRead for Forward<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

impl<R: Read> Source for Forward<R> {
    fn skip(&mut self, distance: i64) -> io::Result<()> {
        let distance = u64::try_from(distance).map_err(|_| io::ErrorKind::Unsupported)?;
        let skipped = io::copy(&mut self.0.by_ref().take(distance), &mut io::sink())?;
        match skipped == distance {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
