//! Every number of the protocol, once (PROTOCOL.md section 7). Numbers are never reused; a number that this list
//! does not know is kept as `Unknown` and can be written back, printed and answered.

/// Defines an enum over one integer type that keeps unknown numbers.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident: $int:ty { $($(#[$item:meta])* $variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$item])* $variant,)*
            /// A number this version does not know, kept as it came.
            Unknown($int),
        }

        impl $name {
            /// Every code this version knows, in ascending order.
            pub const KNOWN: &'static [Self] = &[$(Self::$variant),*];
        }

        impl From<$int> for $name {
            fn from(number: $int) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Unknown(other),
                }
            }
        }

        impl From<$name> for $int {
            fn from(code: $name) -> Self {
                match code {
                    $($name::$variant => $number,)*
                    $name::Unknown(other) => other,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Unknown(other) => write!(f, "unknown code {other}"),
                }
            }
        }
    };
}

codes! {
    /// The first byte of every message.
    FrameType: u8 {
        /// Client to server, first stream: versions, bundles, tasks.
        Hello = 1, "hello";
        /// Server to client: what both can work with.
        Welcome = 2, "welcome";
        /// Server to client: no common ground, by name.
        HelloRefusal = 3, "hello refusal";
        /// Client to server, one per frame.
        Request = 16, "request";
        /// Server to client: answers and stage timings.
        Reply = 17, "reply";
        /// Server to client: no answer for this frame, and why.
        Refusal = 18, "refusal";
    }
}

codes! {
    /// What is asked of a task.
    QueryKind: u8 {
        /// The most probable classes.
        Classify = 1, "classify";
        /// A class per pixel.
        Segment = 2, "segment";
    }
}

codes! {
    /// What a request carries.
    PayloadKind: u8 {
        /// A codec packet: features from the head.
        Packet = 1, "codec packet";
        /// An image file, for the whole network on the server.
        Image = 2, "image";
    }
}

codes! {
    /// The format of an image file.
    ImageFormat: u8 {
        /// JPEG, ITU-T T.81.
        Jpeg = 1, "JPEG";
        /// WebP, RFC 9649.
        WebP = 2, "WebP";
    }
}

codes! {
    /// What is left to do until an image is the network's input.
    Framing: u8 {
        /// Nothing: it has the geometry's size and is taken as it is.
        Fitted = 1, "fitted";
        /// The server fits it to the geometry (models/BUNDLE.md section 3).
        Original = 2, "original";
    }
}

codes! {
    /// What a task answered.
    OutcomeKind: u8 {
        /// The most probable classes.
        Classes = 1, "classes";
        /// A class per pixel.
        Map = 2, "class map";
        /// This task got no answer while another of the same frame did.
        Refused = 255, "refused";
    }
}

codes! {
    /// How the pixels of a class map are stored.
    MapEncoding: u8 {
        /// One byte per pixel, row by row, as one zstd frame.
        ZstdU8 = 1, "zstd u8";
    }
}

codes! {
    /// Which path made the answer.
    Path: u8 {
        /// Features from the head, the rest of the network on the server.
        Split = 1, "split";
        /// An image from the head, the whole network on the server.
        Image = 2, "image";
    }
}

codes! {
    /// Where the server's half of the network ran.
    Provider: u8 {
        /// The server's CPU.
        Cpu = 1, "cpu";
        /// An NVIDIA GPU through CUDA.
        Cuda = 2, "cuda";
    }
}

codes! {
    /// Why a hello, a frame or one task of a frame was refused.
    RefusalCode: u16 {
        /// No protocol version in common.
        Version = 1, "no common protocol version";
        /// None of the client's bundles is served here.
        Bundle = 2, "bundle not served";
        /// A task that was wanted is not available.
        Task = 3, "task not available";
        /// The server has no room for another connection.
        Connections = 4, "too many connections";
        /// The packet did not decode.
        BadPacket = 16, "bad packet";
        /// The budget was spent before the work began.
        Expired = 17, "budget spent";
        /// The queue is full; the retry hint says when to try again.
        Busy = 18, "busy";
        /// The server is shutting down.
        Draining = 19, "draining";
        /// The request names a bundle that the welcome does not list.
        NoSuchBundle = 20, "no such bundle index";
        /// The request names a task that the bundle does not have.
        NoSuchTask = 21, "no such task index";
        /// The task does not answer this kind of question.
        WrongKind = 22, "task cannot answer this kind";
        /// The answer would be over a limit.
        TooLarge = 23, "answer over the limit";
        /// The network failed on this frame.
        Internal = 24, "server failed";
        /// More frames in flight than the welcome allowed.
        TooManyInFlight = 25, "too many frames in flight";
        /// The request asks for something this version does not know.
        Unsupported = 26, "not supported";
        /// The image did not decode, is too large, or does not have the size it claims.
        BadImage = 27, "bad image";
        /// The server does not serve the whole network of the task.
        UnsplitNotServed = 28, "whole network not served";
    }
}

codes! {
    /// Why a connection was closed: the application error code of QUIC's CONNECTION_CLOSE.
    Close: u32 {
        /// Nothing left to do.
        Done = 0, "done";
        /// The peer broke the protocol; the reason text names the field.
        Violation = 1, "protocol violation";
        /// No hello in time.
        HelloTimeout = 2, "hello came too late";
        /// The hello was refused; the refusal went out before.
        Refused = 3, "hello refused";
        /// A message over its limit.
        TooLarge = 4, "message over the limit";
        /// The server has finished its accepted work and leaves.
        Draining = 5, "draining";
        /// No room for another connection.
        Busy = 6, "too many connections";
        /// This side failed.
        Internal = 7, "internal error";
    }
}

codes! {
    /// Why one stream was reset or stopped.
    Reset: u32 {
        /// The client no longer wants the answer: the frame is stale.
        Stale = 0, "stale";
        /// The message is over its limit.
        TooLarge = 1, "message over the limit";
        /// The connection is going away.
        Closing = 2, "closing";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_numbers_are_kept() {
        for number in 0..=u8::MAX {
            assert_eq!(u8::from(FrameType::from(number)), number);
            assert_eq!(u8::from(OutcomeKind::from(number)), number);
            assert_eq!(u8::from(Provider::from(number)), number);
            assert_eq!(u8::from(PayloadKind::from(number)), number);
            assert_eq!(u8::from(ImageFormat::from(number)), number);
            assert_eq!(u8::from(Framing::from(number)), number);
        }
        for number in 0..=u16::MAX {
            assert_eq!(u16::from(RefusalCode::from(number)), number);
        }
        assert_eq!(RefusalCode::from(900).to_string(), "unknown code 900");
    }

    #[test]
    fn known_codes_ascend_so_no_number_stands_twice() {
        let numbers: Vec<u16> = RefusalCode::KNOWN.iter().map(|&code| code.into()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        let numbers: Vec<u32> = Close::KNOWN.iter().map(|&code| code.into()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        let numbers: Vec<u8> = FrameType::KNOWN.iter().map(|&code| code.into()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
