//! The one table of errors: what went wrong, and how each protocol says it.
//!
//! A room's own error type implements [`Fault`]; the doors turn any `Fault` into an answer
//! without knowing the room. Numbers of statuses exist here and nowhere else.

use http::StatusCode;

/// What kind of thing went wrong, as far as a client needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The request is wrong and will stay wrong.
    BadRequest,
    /// No or bad credentials.
    Unauthenticated,
    /// The credentials do not allow this.
    PermissionDenied,
    /// No such model, version, label or path.
    NotFound,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The request is larger than the configured limit.
    TooLarge,
    /// The state of the thing does not allow this change.
    Conflict,
    /// The caller's precondition (`If-Match`) no longer holds.
    Stale,
    /// The request is well formed, and contradicts one that was made before.
    Unprocessable,
    /// More is waiting than the gateway will hold; try again later.
    Overloaded,
    /// The deadline passed first.
    DeadlineExceeded,
    /// The model is loading, draining or failed, or the gateway is stopping.
    Unavailable,
    /// The gateway does not do this.
    Unimplemented,
    /// A bug, or a model that failed while it ran.
    Internal,
}

impl ErrorCode {
    pub const ALL: [Self; 14] = [
        Self::BadRequest,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::TooLarge,
        Self::Conflict,
        Self::Stale,
        Self::Unprocessable,
        Self::Overloaded,
        Self::DeadlineExceeded,
        Self::Unavailable,
        Self::Unimplemented,
        Self::Internal,
    ];

    #[must_use]
    pub fn http(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::PermissionDenied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Stale => StatusCode::PRECONDITION_FAILED,
            Self::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    #[must_use]
    pub fn grpc(self) -> tonic::Code {
        match self {
            Self::BadRequest | Self::Unprocessable => tonic::Code::InvalidArgument,
            Self::Unauthenticated => tonic::Code::Unauthenticated,
            Self::PermissionDenied => tonic::Code::PermissionDenied,
            Self::NotFound => tonic::Code::NotFound,
            Self::MethodNotAllowed | Self::Unimplemented => tonic::Code::Unimplemented,
            Self::TooLarge | Self::Overloaded => tonic::Code::ResourceExhausted,
            Self::Conflict => tonic::Code::FailedPrecondition,
            Self::Stale => tonic::Code::Aborted,
            Self::DeadlineExceeded => tonic::Code::DeadlineExceeded,
            Self::Unavailable => tonic::Code::Unavailable,
            Self::Internal => tonic::Code::Internal,
        }
    }

    /// The value of the metric label `code`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::Conflict => "conflict",
            Self::Stale => "stale",
            Self::Unprocessable => "unprocessable",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unavailable => "unavailable",
            Self::Unimplemented => "unimplemented",
            Self::Internal => "internal",
        }
    }

    /// True where the gateway or a model is at fault, false where the client is: the `code`s that the alerts on errors
    /// look at.
    #[must_use]
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Overloaded | Self::DeadlineExceeded | Self::Unavailable | Self::Internal)
    }

    /// Seconds after which a client may try again; `None` where trying again cannot help.
    #[must_use]
    pub fn retry_after(self) -> Option<u32> {
        matches!(self, Self::Overloaded | Self::Unavailable).then_some(1)
    }
}

/// An error that a client may be told of.
///
/// `Display` of the implementing type is for the log and may name paths and causes;
/// [`Fault::message`] is for the client and must not.
pub trait Fault: std::error::Error {
    fn code(&self) -> ErrorCode;

    /// What the client is told. Plain words, no host paths, no internals.
    fn message(&self) -> String {
        self.to_string()
    }

    /// Seconds after which trying again may help: measured where the fault knows better than
    /// its code.
    fn retry_after(&self) -> Option<u32> {
        self.code().retry_after()
    }

    /// The fault as a gRPC status, with `retry-after` as metadata where that may help.
    fn to_status(&self) -> tonic::Status {
        let mut status = tonic::Status::new(self.code().grpc(), self.message());
        if let Some(seconds) = self.retry_after() {
            status.metadata_mut().insert("retry-after", seconds.into());
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the outside contract, written out once more by hand.
    #[test]
    fn codes_map_as_the_contract_says() {
        let contract = [
            (ErrorCode::BadRequest, 400, tonic::Code::InvalidArgument),
            (ErrorCode::NotFound, 404, tonic::Code::NotFound),
            (ErrorCode::TooLarge, 413, tonic::Code::ResourceExhausted),
            (ErrorCode::Overloaded, 429, tonic::Code::ResourceExhausted),
            (ErrorCode::DeadlineExceeded, 504, tonic::Code::DeadlineExceeded),
            (ErrorCode::Unavailable, 503, tonic::Code::Unavailable),
            (ErrorCode::Internal, 500, tonic::Code::Internal),
            (ErrorCode::Unauthenticated, 401, tonic::Code::Unauthenticated),
            (ErrorCode::PermissionDenied, 403, tonic::Code::PermissionDenied),
            (ErrorCode::Stale, 412, tonic::Code::Aborted),
            (ErrorCode::Unprocessable, 422, tonic::Code::InvalidArgument),
        ];
        for (code, http, grpc) in contract {
            assert_eq!(code.http().as_u16(), http);
            assert_eq!(code.grpc(), grpc);
        }
    }

    #[test]
    fn labels_are_distinct() {
        let labels: std::collections::BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.label()).collect();
        assert_eq!(labels.len(), ErrorCode::ALL.len());
    }
}
