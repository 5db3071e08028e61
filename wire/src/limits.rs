//! Every limit of the protocol, by name (PROTOCOL.md section 6). Each is checked before memory is taken.

use std::time::Duration;

/// Bundles that a hello or a welcome may list.
pub const MAX_BUNDLES: usize = 16;

/// Tasks that a hello may want, that a bundle may have, and that a request may ask for.
pub const MAX_TASKS: usize = 16;

/// Bytes of a task's name; names are made of `a-z 0-9 . _ -` (models/BUNDLE.md section 2).
pub const MAX_NAME: usize = 64;

/// Bytes of a refusal's text.
pub const MAX_TEXT: usize = 512;

/// Bytes of a hello, a welcome or a hello's refusal. The largest legal welcome is 17 kB.
pub const MAX_HELLO: usize = 32 * 1024;

/// Bytes of a codec packet. Packets of the default bundle are about 6 kB; a raw 480 x 360 frame of 36 channels is
/// 97 kB.
pub const MAX_PACKET: usize = 1 << 20;

/// Bytes of an image file. A fitted one of the default bundle has about 10 kB, one of 12 megapixels at JPEG quality
/// 75 about 3 MB.
pub const MAX_IMAGE: usize = 4 << 20;
/// Pixels of an image, told by its header before it is decoded: 12 megapixels of a camera and a little more.
pub const MAX_IMAGE_PIXELS: usize = 1 << 24;
/// Bytes of a request: the image and its header with every optional part at its largest.
pub const MAX_REQUEST: usize = MAX_IMAGE + 8 * 1024;

/// Bytes of a reply. The default bundle's are 0.1 to 5 kB.
pub const MAX_REPLY: usize = 4 << 20;

/// Bytes of the parameters of one ask.
pub const MAX_QUERY: usize = 255;

/// Classes that may be asked for.
pub const MAX_TOP_K: u16 = 1000;

/// Width or height of a class map.
pub const MAX_MAP_SIDE: u16 = 4096;

/// Pixels of a class map, and so the bytes it may unpack to: full HD and a little more.
pub const MAX_MAP_PIXELS: usize = 1 << 21;

/// Frames that a server may allow in flight on one connection.
pub const MAX_IN_FLIGHT: u16 = 256;

/// How long a QUIC handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after the handshake the hello may come.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a started message may take to arrive in full.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
