//! What Triton does on its inference ports and this plane does not, in words that say what to
//! use instead. One text for both doors.

use super::refusal::Refusal;
use crate::fault::ErrorCode;

/// The parameter of a tensor whose data lies in shared memory, of the system or of CUDA.
pub(super) const SHARED_MEMORY_PARAMETER: &str = "shared_memory_region";

/// A region would be memory of the client's choice inside the gateway, or the other way round.
pub(super) fn shared_memory() -> Refusal {
    Refusal::new(
        ErrorCode::Unimplemented,
        "shared memory is not served, since a client must not map memory into the gateway: send tensors in the \
         request (raw contents over gRPC, the binary extension over HTTP), which are used in place",
    )
}

/// Clients must not change what is served.
pub(super) fn load_and_unload() -> Refusal {
    Refusal::new(
        ErrorCode::Unimplemented,
        "models are not loaded or unloaded on this plane: use /v2/repository on the admin plane (port 8003 unless \
         configured otherwise), or `tidegate load` and `tidegate unload`",
    )
}

/// A setting that clients may only read.
pub(super) fn denied(words: &str) -> Refusal {
    Refusal::new(ErrorCode::PermissionDenied, words)
}
