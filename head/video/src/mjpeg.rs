//! JPEG files one behind the other (ITU-T T.81, annex B): where each begins and ends, without decoding it.

use crate::counts::Counts;

/// Follows a stream of JPEG files. Segments are skipped by their lengths, so that a thumbnail within one is not taken for a
/// picture of the stream.
#[derive(Debug, Default)]
pub(crate) struct Mjpeg {
    /// The picture so far; before its beginning is found, bytes that may be the front of it.
    bytes: Vec<u8>,
    /// How far `bytes` have been followed; beyond their end where a segment has not arrived whole.
    at: usize,
    place: Place,
    /// Whether a scan of the picture has begun.
    has_scan: bool,
}

/// Where in a picture the parser is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Before a picture.
    #[default]
    Outside,
    /// At a marker.
    Marker,
    /// In the data of a scan.
    Scan,
}

/// What one step came to.
enum Step {
    /// More bytes are needed.
    Wait,
    /// It went on, and there may be more to do.
    Next,
    /// The first so many bytes are a picture.
    Picture(usize),
}

impl Mjpeg {
    /// Takes bytes and delivers the pictures that they complete, each of at most `limit` bytes.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        limit: usize,
        counts: &mut Counts,
        deliver: &mut dyn FnMut(Vec<u8>),
    ) {
        // In parts, so that memory stays bounded by the limit whatever is pushed at once.
        for part in bytes.chunks(1 << 16) {
            self.bytes.extend_from_slice(part);
            loop {
                match self.step(limit, counts) {
                    Step::Next => {}
                    Step::Wait => break,
                    Step::Picture(end) => {
                        let rest = self.bytes.split_off(end);
                        let picture = std::mem::replace(&mut self.bytes, rest);
                        counts.pictures += 1;
                        deliver(picture);
                    }
                }
            }
        }
    }

    /// Ends the stream. Returns what may be a picture without an end marker.
    pub(crate) fn finish(self, counts: &mut Counts) -> Option<Vec<u8>> {
        match self.place {
            Place::Scan => Some(self.bytes),
            Place::Marker if self.has_scan => Some(self.bytes),
            Place::Marker => {
                counts.damaged += 1;
                counts.skipped += self.bytes.len() as u64;
                None
            }
            Place::Outside => {
                counts.skipped += self.bytes.len() as u64;
                None
            }
        }
    }

    fn step(&mut self, limit: usize, counts: &mut Counts) -> Step {
        match self.place {
            Place::Outside => self.search(counts),
            Place::Marker => self.marker(limit, counts),
            Place::Scan => self.scan(limit, counts),
        }
    }

    /// Looks for the start of an image, and the first byte of the marker that follows it.
    fn search(&mut self, counts: &mut Counts) -> Step {
        match self.bytes.windows(3).position(|bytes| bytes == [0xff, 0xd8, 0xff]) {
            Some(start) => {
                counts.skipped += start as u64;
                self.begin_at(start);
                Step::Next
            }
            None => {
                // The last two bytes may be the front of it.
                let kept = self.bytes.len().min(2);
                let gone = self.bytes.len() - kept;
                counts.skipped += gone as u64;
                self.bytes.drain(..gone);
                Step::Wait
            }
        }
    }

    /// Follows one segment. Where a picture is given up depends on its bytes alone and not on how they arrive.
    fn marker(&mut self, limit: usize, counts: &mut Counts) -> Step {
        if self.at > self.bytes.len() {
            // The segment before it has not arrived whole, and goes with the picture if that is given up.
            return Step::Wait;
        }
        if self.at + 2 > limit {
            return self.give_up(self.at, counts);
        }
        let Some(&[first, marker]) = self.bytes.get(self.at..self.at + 2) else { return Step::Wait };
        match (first, marker) {
            // A fill byte.
            (0xff, 0xff) => self.at += 1,
            // The end, behind a segment that follows a scan.
            (0xff, 0xd9) if self.has_scan => return self.end(self.at + 2),
            (0xff, 0xd8) if self.has_scan => return self.end(self.at),
            // Another picture begins: this one was cut before its first scan.
            (0xff, 0xd8) => {
                counts.damaged += 1;
                counts.skipped += self.at as u64;
                self.begin_at(self.at);
            }
            // Markers without a length.
            (0xff, 0x01 | 0xd0..=0xd7) => self.at += 2,
            (0xff, 0x02..=0xbf) | (0xff, 0x00) | (0xff, 0xd9) | (..=0xfe, _) => {
                return self.give_up(self.at, counts);
            }
            (0xff, _) => {
                let Some(&[high, low]) = self.bytes.get(self.at + 2..self.at + 4) else { return Step::Wait };
                let length = usize::from(u16::from_be_bytes([high, low]));
                if length < 2 || self.at + 2 + length > limit {
                    return self.give_up(self.at, counts);
                }
                self.at += 2 + length;
                self.place = if marker == 0xda { Place::Scan } else { Place::Marker };
                self.has_scan |= marker == 0xda;
            }
        }
        Step::Next
    }

    fn scan(&mut self, limit: usize, counts: &mut Counts) -> Step {
        loop {
            let end = self.bytes.len().min(limit);
            let rest = self.bytes.get(self.at..end).unwrap_or_default();
            let Some(found) = rest.iter().position(|&byte| byte == 0xff) else {
                if end == limit {
                    return self.give_up(limit, counts);
                }
                self.at = self.at.max(end);
                return Step::Wait;
            };
            self.at += found;
            if self.at + 2 > limit {
                return self.give_up(limit, counts);
            }
            let Some(&marker) = self.bytes.get(self.at + 1) else { return Step::Wait };
            match marker {
                0xff => self.at += 1,
                // A stuffed byte of ff, and restart markers.
                0x00 | 0xd0..=0xd7 => self.at += 2,
                0xd9 => return self.end(self.at + 2),
                // Another picture begins: some cameras write no end marker, or this one was cut. The decoder tells.
                0xd8 => return self.end(self.at),
                _ => {
                    self.place = Place::Marker;
                    return Step::Next;
                }
            }
        }
    }

    fn begin_at(&mut self, start: usize) {
        self.bytes.drain(..start);
        (self.at, self.place, self.has_scan) = (2, Place::Marker, false);
    }

    fn end(&mut self, end: usize) -> Step {
        (self.at, self.place) = (0, Place::Outside);
        Step::Picture(end)
    }

    /// Gives up the picture with its first `count` bytes. The next one is searched behind them, so that every byte is looked at
    /// a bounded number of times.
    fn give_up(&mut self, count: usize, counts: &mut Counts) -> Step {
        let gone = count.min(self.bytes.len());
        counts.damaged += 1;
        counts.skipped += gone as u64;
        self.bytes.drain(..gone);
        (self.at, self.place) = (0, Place::Outside);
        Step::Next
    }
}
