//! Bytes of a known number, collected from pieces.

/// Bytes for which memory is taken before they have arrived.
const TRUSTED: usize = 1 << 20;

/// Bytes of a known number, as they arrive.
#[derive(Debug)]
pub(crate) struct Collector {
    size: usize,
    bytes: Vec<u8>,
}

impl Collector {
    pub(crate) fn new(size: usize) -> Self {
        Collector { size, bytes: Vec::with_capacity(size.min(TRUSTED)) }
    }

    /// Takes as many of `bytes` as are missing; returns the others.
    pub(crate) fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(self.size - self.bytes.len()));
        self.bytes.extend_from_slice(taken);
        rest
    }

    /// All bytes, once they are there; then it begins anew.
    pub(crate) fn whole(&mut self) -> Option<Vec<u8>> {
        // What has arrived once is taken at once the next time.
        let next = || Vec::with_capacity(self.size);
        (self.bytes.len() == self.size).then(|| std::mem::replace(&mut self.bytes, next()))
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}
