//! The limits of the protocol (PROTOCOL.md section 6). Each is checked before memory is allocated.

use std::time::Duration;

/// Bundles that a hello or a welcome may list.
pub const MAX_BUNDLES: usize = 16;

/// Tasks that a hello may list, that a bundle may have, and that a request may query.
pub const MAX_TASKS: usize = 16;

/// Bytes of a task's name; names are made of `a-z 0-9 . _ -` (models/BUNDLE.md section 2).
pub const MAX_NAME: usize = 64;

/// Bytes of a refusal's text.
pub const MAX_TEXT: usize = 512;

/// Bytes of a hello, a welcome or a hello's refusal. The largest legal welcome is 17 kB.
pub const MAX_HELLO: usize = 32 * 1024;

/// Bytes of a codec packet. Packets of the default bundle have about 6 kB; the features of a 480 × 360 frame with 36
/// channels have 97 kB without entropy coding.
pub const MAX_PACKET: usize = 1 << 20;

/// Bytes of an image file. A fitted one of the default bundle has about 10 kB, one of 12 megapixels at JPEG quality
/// 75 about 3 MB.
pub const MAX_IMAGE: usize = 4 << 20;

/// Pixels of an image, by its header, which is read before it is decoded: enough for a camera of 12 megapixels.
pub const MAX_IMAGE_PIXELS: usize = 1 << 24;

/// Bytes of a request: an image and all other fields at their largest.
pub const MAX_REQUEST: usize = MAX_IMAGE + 8 * 1024;

/// Bytes of a reply. The default bundle's are 0.1 to 5 kB.
pub const MAX_REPLY: usize = 4 << 20;

/// Bytes of the parameters of one query.
pub const MAX_QUERY: usize = 255;

/// Classes that a query may ask for.
pub const MAX_TOP_K: u16 = 1000;

/// Width or height of a class map.
pub const MAX_MAP_SIDE: u16 = 4096;

/// Pixels of a class map, and so the bytes that it may decompress to: enough for full HD.
pub const MAX_MAP_PIXELS: usize = 1 << 21;

/// Frames that a server may allow in flight on one connection.
pub const MAX_IN_FLIGHT: u16 = 256;

/// Bytes of a notice.
pub const MAX_NOTICE: usize = 1024;

/// Notices that may be on their way to a client at once.
pub const MAX_NOTICES: u8 = 4;

/// Bytes of a certificate signing request. That of a P-256 key has 0.3 kB, of RSA with 4096 bits 1.7 kB.
pub const MAX_SIGNING_REQUEST: usize = 4096;

/// Bytes of a certificate in the answer to an enrolment. Those of this project have 0.5 kB.
pub const MAX_CERTIFICATE: usize = 8 * 1024;

/// Certificates in the answer to an enrolment: the device's, and those of CAs behind it.
pub const MAX_CHAIN: usize = 4;

/// Bytes of a device's message in an enrolment.
pub const MAX_ENROLMENT: usize = MAX_SIGNING_REQUEST + 128;

/// Bytes of the answer to an enrolment.
pub const MAX_ENROLMENT_REPLY: usize = MAX_CHAIN * (MAX_CERTIFICATE + 4) + 16;

/// The time from the end of the handshake of an enrolment to its answer.
pub const ENROLMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// The time that a QUIC handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// The time from the end of the handshake to the arrival of the hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The time from the beginning of the reading of a request to the arrival of its end.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
