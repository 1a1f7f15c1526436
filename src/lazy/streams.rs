//! How much to fill at a fault: one page where faults are scattered, more and more where
//! they follow each other.

/// Streams that are told apart: about as many threads may walk at once.
const MOST: usize = 8;
/// A fault this many pages behind the end of what a stream was given goes on with it.
const NEAR: u64 = 8;
/// Most pages at once: 1 MiB.
pub const MOST_WINDOW: u64 = 256;

#[derive(Debug, Clone, Copy)]
struct Stream {
    /// The page after those that it was given.
    next: u64,
    window: u64,
}

/// The latest walks through an address space; the latest first.
#[derive(Debug, Clone, Default)]
pub struct Streams(Vec<Stream>);

impl Streams {
    /// How many pages to fill from a faulting one on.
    pub fn window(&mut self, page: u64) -> u64 {
        let near = |it: &Stream| (it.next - it.window..it.next + NEAR).contains(&page);
        let window = match self.0.iter().position(near) {
            Some(at) => {
                let stream = self.0.remove(at);
                // A walk may be faster than the filling of what it was given.
                let more = if page < stream.next { 1 } else { 2 };
                (stream.window * more).min(MOST_WINDOW)
            }
            None => 1,
        };
        self.0.truncate(MOST - 1);
        let next = page + window;
        self.0.insert(0, Stream { next, window });
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_get_more_and_scattered_faults_one() {
        let mut streams = Streams::default();
        let mut given = Vec::new();
        let (mut a, mut b) = (1000, 5000);
        for step in 0..12 {
            let window = streams.window(a);
            a += window;
            given.push(window);
            b += streams.window(b);
            assert_eq!(streams.window(1_000_000 - step * 1000), 1);
        }
        assert_eq!(given, [1, 2, 4, 8, 16, 32, 64, 128, 256, 256, 256, 256]);
        assert_eq!(streams.window(a - 200), 256);
    }
}
