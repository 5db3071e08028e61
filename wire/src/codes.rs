//! The numeric codes of the protocol (PROTOCOL.md section 7). Numbers are never reused. A number that is not in these lists
//! is kept as `Unknown`, so that it can be written again, printed and answered.

/// Defines an enum whose variants have numbers of an integer type, and which keeps unknown numbers.
macro_rules! codes {
    ($(#[$doc:meta])* $name:ident: $int:ty { $($(#[$item:meta])* $variant:ident = $number:literal, $text:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$item])* $variant,)*
            /// A number that this version does not know, kept unchanged.
            Unknown($int),
        }

        impl $name {
            /// All codes that this version knows, in ascending order.
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
        /// Server to client: the version and the bundles that both sides have.
        Welcome = 2, "welcome";
        /// Server to client: the reason why the hello cannot be accepted.
        HelloRefusal = 3, "hello refusal";
        /// Server to client, unasked: another version of a bundle is served.
        BundleNotice = 4, "bundle notice";
        /// Client to server, one per frame.
        Request = 16, "request";
        /// Server to client: the answers to a request and the time of each stage.
        Reply = 17, "reply";
        /// Server to client: the reason why a request has no answer.
        Refusal = 18, "refusal";
        /// Server to client: a reply to a truncatable packet.
        GroupsReply = 19, "reply to a truncatable packet";
    }
}

codes! {
    /// The kind of a query to a task.
    QueryKind: u8 {
        /// The most probable classes.
        Classify = 1, "classify";
        /// A class per pixel.
        Segment = 2, "segment";
    }
}

codes! {
    /// The kind of a request's payload.
    PayloadKind: u8 {
        /// A codec packet, which holds the features that the head computed.
        Packet = 1, "codec packet";
        /// An image file, for the unsplit network on the server.
        Image = 2, "image";
        /// A codec packet of which the server uses what has arrived in time.
        Truncatable = 3, "truncatable packet";
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
    /// The state of an image with respect to the network's input size.
    Framing: u8 {
        /// The image has the geometry's size and is the network's input as it is.
        Fitted = 1, "fitted";
        /// The image has any size; the server fits it to the geometry (models/BUNDLE.md section 3).
        Original = 2, "original";
    }
}

codes! {
    /// The kind of a task's outcome.
    OutcomeKind: u8 {
        /// The most probable classes.
        Classes = 1, "classes";
        /// A class per pixel.
        Map = 2, "class map";
        /// No answer from this task, while another task of the same frame has one.
        Refused = 255, "refused";
    }
}

codes! {
    /// The encoding of a class map's pixels.
    MapEncoding: u8 {
        /// One byte per pixel, row by row, as one zstd frame.
        ZstdU8 = 1, "zstd u8";
    }
}

codes! {
    /// The path that a frame took through the networks.
    Path: u8 {
        /// The split network: features from the head, the rest of the network on the server.
        Split = 1, "split";
        /// The unsplit network on the server, for an image from the head.
        Image = 2, "image";
    }
}

codes! {
    /// The processor on which the server ran the network.
    Provider: u8 {
        /// The server's CPU.
        Cpu = 1, "cpu";
        /// An NVIDIA GPU through CUDA.
        Cuda = 2, "cuda";
    }
}

codes! {
    /// The reason why a hello, a frame or one task of a frame was refused.
    RefusalCode: u16 {
        /// No protocol version in common.
        Version = 1, "no common protocol version";
        /// None of the client's bundles is served here.
        Bundle = 2, "bundle not served";
        /// A task that the client requires is not available.
        Task = 3, "task not available";
        /// The server has no room for another connection.
        Connections = 4, "too many connections";
        /// The server gives the client's name no rights.
        NotPermitted = 5, "not permitted";
        /// The packet cannot be decoded.
        BadPacket = 16, "bad packet";
        /// The frame's time budget ran out before the work began, or would have run out before its end.
        Expired = 17, "budget spent";
        /// The queue is full, or a quota of the client is used up; the retry hint says when to try again.
        Busy = 18, "busy";
        /// The server is shutting down.
        Draining = 19, "draining";
        /// The bundle index of the request is not in the welcome.
        NoSuchBundle = 20, "no such bundle index";
        /// The task index of the request is not in the bundle.
        NoSuchTask = 21, "no such task index";
        /// The task does not answer queries of this kind.
        WrongKind = 22, "task cannot answer this kind";
        /// The request, or its answer, is over a limit of the protocol.
        TooLarge = 23, "over the limit";
        /// The server failed on this frame.
        Internal = 24, "server failed";
        /// More frames are in flight than the welcome allows.
        TooManyInFlight = 25, "too many frames in flight";
        /// The request asks for something that this version does not know.
        Unsupported = 26, "not supported";
        /// The image cannot be decoded, is too large, or does not have the size that its framing says.
        BadImage = 27, "bad image";
        /// The server does not serve the unsplit network of the task.
        UnsplitNotServed = 28, "whole network not served";
    }
}

codes! {
    /// The reason for which a connection was closed: the application error code of QUIC's CONNECTION_CLOSE.
    Close: u32 {
        /// There is nothing left to do.
        Done = 0, "done";
        /// The peer broke the protocol; the reason text names the field.
        Violation = 1, "protocol violation";
        /// The hello did not arrive in time.
        HelloTimeout = 2, "hello came too late";
        /// The hello was refused; the refusal was sent before.
        Refused = 3, "hello refused";
        /// A message is over its limit.
        TooLarge = 4, "message over the limit";
        /// The server has answered the frames it accepted and shuts down.
        Draining = 5, "draining";
        /// The server has no room for another connection.
        Busy = 6, "too many connections";
        /// The side that closed the connection failed.
        Internal = 7, "internal error";
        /// The certificate that the peer authenticated with is no longer accepted: it is revoked, or the server reads its
        /// certificates again and it has ended or is of a CA that was replaced.
        Revoked = 8, "certificate revoked or no longer accepted";
        /// The connection was silent, and a new one of the same client took its place.
        Replaced = 9, "replaced by a newer connection";
    }
}

codes! {
    /// The reason for which one stream was reset or stopped.
    Reset: u32 {
        /// The client no longer needs the answer, because the frame is stale.
        Stale = 0, "stale";
        /// The message is over its limit.
        TooLarge = 1, "message over the limit";
        /// The connection is about to be closed.
        Closing = 2, "closing";
        /// The message was not read in time.
        Unread = 3, "not read in time";
        /// The request is not read to its end; the answer in the other direction of the stream is final.
        Refused = 4, "refused";
    }
}

codes! {
    /// The first byte of every message of an enrolment (PROTOCOL.md section 9).
    EnrolmentType: u8 {
        /// Client to server: a first certificate, with a token.
        Enrol = 1, "enrol";
        /// Client to server: another certificate before the present one ends.
        Renew = 2, "renew";
        /// Server to client: the certificate.
        Issued = 3, "issued";
        /// Server to client: the operator has not decided yet.
        Pending = 4, "pending";
        /// Server to client: there will be no certificate.
        Refused = 5, "refused";
    }
}

codes! {
    /// The reason why a device gets no certificate.
    EnrolmentCode: u16 {
        /// There is no such token, or its secret is another one.
        Token = 1, "the token is not known";
        /// The token's time is over.
        Ended = 2, "the token has ended";
        /// Another key has used the token, or its key another token since.
        Used = 3, "the token was used";
        /// The token is not for this name, or the name is taken.
        Name = 4, "the name cannot be had";
        /// The signing request is damaged, or its signature is not by its key.
        Request = 5, "the signing request cannot be used";
        /// The operator has refused it.
        Rejected = 6, "rejected";
        /// The certificate is revoked, so there is no other one.
        Revoked = 7, "revoked";
        /// The device was given many certificates of late.
        Often = 8, "too often";
        /// The server failed, or cannot sign.
        Internal = 9, "the server failed";
        /// A renewal without a certificate of this CA that authenticates the connection.
        Unauthenticated = 10, "no certificate that can be renewed";
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
    fn known_codes_ascend_so_no_number_is_used_twice() {
        let numbers: Vec<u16> = RefusalCode::KNOWN.iter().map(|&code| code.into()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        let numbers: Vec<u32> = Close::KNOWN.iter().map(|&code| code.into()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        let numbers: Vec<u16> = EnrolmentCode::KNOWN.iter().map(|&code| code.into()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
        let numbers: Vec<u8> = FrameType::KNOWN.iter().map(|&code| code.into()).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
