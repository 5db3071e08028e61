//! The engine's refusals by the numbers of wire/PROTOCOL.md, by which all front ends count them.

use narrows_wire::RefusalCode;

use crate::engine::RefusalReason;

/// The code of a refusal of the engine.
pub(crate) fn refusal_code(reason: RefusalReason) -> RefusalCode {
    match reason {
        RefusalReason::BadLatent => RefusalCode::BadPacket,
        RefusalReason::BadImage => RefusalCode::BadImage,
        RefusalReason::NoSuchTask => RefusalCode::NoSuchTask,
        RefusalReason::WrongQuery => RefusalCode::WrongKind,
        RefusalReason::UnsplitNotServed => RefusalCode::UnsplitNotServed,
        RefusalReason::Busy => RefusalCode::Busy,
        RefusalReason::Expired => RefusalCode::Expired,
        RefusalReason::ShuttingDown => RefusalCode::Draining,
        RefusalReason::TooLarge => RefusalCode::TooLarge,
        RefusalReason::Internal => RefusalCode::Internal,
    }
}
