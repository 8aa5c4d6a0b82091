//! One HTTP request: which route it takes, what it is told.

use std::{cell::RefCell, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, EXPECT, VARY},
    request::Parts,
};
use http_body::Body;
use serde::Serialize;
use tracing::Span;

use super::{
    answer,
    body::{self, Bounds},
    encoding::{self, Coding},
    extensions,
    json::{self, BinaryOutputs, Decoded, Encoded},
    raw,
    routes::{self, Route, Selector, Verb},
    server::PlaneBody,
};
use crate::{
    domain::{InferRequest, ModelName, Protocol, RequestId, Target, TensorSpec, Urgency},
    fault::{ErrorCode, Fault},
    gateway::ModelView,
    protocol::{
        DoorOptions, EXTENSIONS, Nonfinite, PLATFORM, ROUTING_KEY_HEADER, SERVER_NAME, budget::BodyPermit,
        data_plane::DataPlane, deadline, model_config, naming, refusal::Refusal, settings, trace,
    },
    telemetry::in_span,
};

/// Marks a request of the binary tensor extension.
static BINARY_HEADER: HeaderName = HeaderName::from_static("inference-header-content-length");

/// A refused body of no more is read to its end, so that its connection can go on. When the
/// gateway has too much to do, that is less: throwing a body away costs most of what reading it does.
const DRAIN: usize = usize::MAX;
const DRAIN_WHEN_BUSY: usize = 1 << 20;

/// The HTTP door of one gateway.
pub(super) struct Door<D> {
    gateway: Arc<D>,
    options: DoorOptions,
}

impl<D: DataPlane> Door<D> {
    pub(super) fn new(gateway: Arc<D>, options: DoorOptions) -> Self {
        Self { gateway, options }
    }

    /// Answers a request, whatever it is.
    pub(super) async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Response<PlaneBody>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, mut body) = request.into_parts();
        let route = match routes::parse(parts.uri.path()) {
            Ok(route) => route,
            Err(refusal) => return self.refused(None, &refusal, &parts, &mut body).await,
        };
        if !route.allows(&parts.method) {
            let refusal = Refusal::new(ErrorCode::MethodNotAllowed, format!("use {} here", route.allow()));
            let mut response = self.refused(None, &refusal, &parts, &mut body).await;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(route.allow()));
            return response;
        }
        let response = match route {
            Route::Server => answer::json(StatusCode::OK, &ServerMetadata::OURS),
            Route::Live => answer::json_bytes(StatusCode::OK, r#"{"live":true}"#),
            Route::Ready if self.gateway.is_ready() => answer::json_bytes(StatusCode::OK, r#"{"ready":true}"#),
            Route::Ready => answer::error(ErrorCode::Unavailable, "the gateway is not ready"),
            Route::Model { name, selector, verb: Verb::Infer } => {
                let span = trace::request_span(Protocol::Http, &parts.headers, &name);
                let accepted = in_span!(span, self.accept(&name, &selector, &parts, &mut body));
                let accepted = match accepted {
                    Ok(accepted) => accepted,
                    Err(refusal) => {
                        trace::record_failure(&span, refusal.code());
                        return self.refused(Some(&name), &refusal, &parts, &mut body).await;
                    }
                };
                // The memory of the head goes back to the connection before the model runs, for the next request.
                drop((name, selector));
                return in_span!(span, self.infer(accepted, spare(parts), &span));
            }
            Route::Extension(extension) => {
                match extension.answer(self.gateway.as_ref(), &self.options, &parts.method, &mut body).await {
                    Ok(response) => response,
                    Err(refusal) => self.refused(None, &refusal, &parts, &mut body).await,
                }
            }
            Route::Model { verb: Verb::TraceSettings, .. } if parts.method == Method::POST => {
                self.refused(None, &settings::trace_is_read_only(), &parts, &mut body).await
            }
            Route::Model { name, selector, verb } => self.describe(&name, &selector, verb),
        };
        if parts.method == Method::HEAD { answer::head_only(response) } else { response }
    }

    async fn infer(&self, accepted: Accepted, spare: HeaderMap, span: &Span) -> Response<PlaneBody> {
        let Accepted { request, binary, nonfinite, coding, permit } = accepted;
        let reply = match self.gateway.infer(request).await {
            Ok(reply) => reply,
            Err(fault) => {
                trace::record_failure(span, fault.code());
                return answer::fault(&fault);
            }
        };
        trace::record_reply(span, &reply);
        let response = match json::encode(&reply, &binary, nonfinite) {
            Ok(encoded) => answered(encoded, coding, spare).await,
            // The gateway has counted this request by its run: here it is only told.
            Err(refusal) => answer::fault(&refusal),
        };
        drop(permit);
        response
    }

    /// The request in our own terms.
    async fn accept<B>(
        &self,
        model: &str,
        selector: &Selector<'_>,
        parts: &Parts,
        body: &mut B,
    ) -> Result<Accepted, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let headers = &parts.headers;
        let arrived = Instant::now();
        let (model, target) = (naming::model(model)?, selector.target()?);
        let coding = encoding::of_request(headers)?;
        let json_length = json_length(headers)?;
        let header_key = routing_key(headers)?;
        let in_time = |timeout: Option<_>| timeout.and_then(|timeout| arrived.checked_add(timeout));
        let header_deadline = in_time(deadline::header_timeout(headers)?);
        // What is sure to be refused is refused before its body costs anything.
        self.gateway.accepts(&model, &target).map_err(|fault| Refusal::of(&fault))?;
        let limit = self.options.max_body_bytes;
        let patience = self.options.body_timeout;
        let elements = json_length.unwrap_or(0);
        let bounds = Bounds { limit, budget: &self.options.budget, patience, deadline: header_deadline, elements };
        let (bytes, permit) = body::read(body, &bounds).await?;
        let (bytes, permit) = encoding::inflate(bytes, coding, limit, permit).await?;
        let decoded = match json_length {
            Some(0) => self.decode_raw(&model, &target, bytes)?,
            _ => json::decode(&bytes, json_length)?,
        };
        let request = InferRequest {
            model,
            target,
            id: decoded.id,
            routing_key: header_key.or(decoded.routing_key),
            parameters: decoded.parameters,
            inputs: decoded.inputs,
            outputs: decoded.outputs,
            urgency: Urgency {
                priority: decoded.priority,
                deadline: header_deadline.into_iter().chain(in_time(decoded.timeout)).min(),
            },
            protocol: Protocol::Http,
        };
        let nonfinite = decoded.nonfinite.unwrap_or(self.options.nonfinite);
        Ok(Accepted { request, binary: decoded.binary, nonfinite, coding: encoding::for_answer(headers), permit })
    }

    /// A raw binary request: nothing but the bytes of the one input, and so are the outputs.
    fn decode_raw(&self, model: &ModelName, target: &Target, body: Bytes) -> Result<Decoded, Refusal> {
        let view = self.gateway.model(model, target).map_err(|fault| Refusal::of(&fault))?;
        Ok(Decoded {
            id: RequestId::given_or_new("")?,
            routing_key: None,
            parameters: Vec::new(),
            inputs: Arc::from([raw::input(&view.signature, body)?]),
            outputs: Vec::new(),
            priority: None,
            timeout: None,
            binary: BinaryOutputs { all: true, single: Vec::new() },
            nonfinite: None,
        })
    }

    /// What a client may know of a model.
    fn describe(&self, name: &str, selector: &Selector<'_>, verb: Verb) -> Response<PlaneBody> {
        let (model, target) = match naming::model(name).and_then(|model| Ok((model, selector.target()?))) {
            Ok(named) => named,
            Err(refusal) => {
                self.gateway.refuse(Some(name), Protocol::Http, refusal.code());
                return answer::fault(&refusal);
            }
        };
        if verb == Verb::Statistics {
            return extensions::statistics(self.gateway.statistics(Some(&model), &target));
        }
        match self.gateway.model(&model, &target) {
            Err(fault) => answer::fault(&fault),
            Ok(_) if verb == Verb::TraceSettings => answer::json(StatusCode::OK, &self.options.settings.trace()),
            Ok(view) if verb == Verb::Ready => {
                answer::json(StatusCode::OK, &ModelReady { name: view.name.as_str(), ready: true })
            }
            Ok(view) if verb == Verb::Config => answer::json_bytes(StatusCode::OK, model_config::json(&view)),
            Ok(view) => answer::json(StatusCode::OK, &ModelMetadata::of(&view)),
        }
    }

    /// Counts a refusal and answers it, in a way that a client still sending can see.
    async fn refused<B>(
        &self,
        model: Option<&str>,
        refusal: &Refusal,
        parts: &Parts,
        body: &mut B,
    ) -> Response<PlaneBody>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        self.gateway.refuse(model, Protocol::Http, refusal.code());
        let mut response = answer::fault(refusal);
        if body.is_end_stream() {
            return response;
        }
        let http1 = parts.version < Version::HTTP_2;
        // A client that asked first has sent nothing yet, and is told now that it need not.
        let unsent = http1 && parts.headers.contains_key(EXPECT);
        let is_busy = matches!(refusal.code(), ErrorCode::Overloaded | ErrorCode::Unavailable);
        let emptied = !unsent && body::drain(body, if is_busy { DRAIN_WHEN_BUSY } else { DRAIN }).await;
        if http1 && !emptied {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// A request, and what its answer needs.
struct Accepted {
    request: InferRequest,
    binary: BinaryOutputs,
    nonfinite: Nonfinite,
    coding: Coding,
    /// For the memory of its body, until the answer is made.
    permit: BodyPermit,
}

/// The length of the JSON, when the request says that raw tensors stand behind it.
fn json_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(&BINARY_HEADER) else { return Ok(None) };
    let length = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = length.and_then(|text| text.parse().ok());
    let wrong = || Refusal::bad_request("Inference-Header-Content-Length is not a length in bytes");
    length.ok_or_else(wrong).map(Some)
}

/// An empty map of headers for the answer: that of the request has all the room.
fn spare(parts: Parts) -> HeaderMap {
    let mut headers = parts.headers;
    headers.clear();
    headers
}

/// A length as the value of a header. Answers of one model have the same length one after the other.
fn length_header(length: usize) -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(usize, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("0"))) };
    }
    LAST.with_borrow_mut(|last| {
        if last.0 != length {
            *last = (length, length.into());
        }
        last.1.clone()
    })
}

/// The encoded reply as an answer, its headers in `headers`.
async fn answered(encoded: Encoded, coding: Coding, mut headers: HeaderMap) -> Response<PlaneBody> {
    let Encoded { body, blobs, json_length } = encoded;
    let body = Bytes::from(body);
    let (first, rest) = match encoding::deflate(&body, &blobs, coding).await {
        Some(deflated) => {
            headers.insert(CONTENT_ENCODING, coding.header());
            headers.insert(VARY, ACCEPT_ENCODING.into());
            (deflated, Vec::new())
        }
        None => (body, blobs),
    };
    match json_length {
        Some(length) => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            headers.insert(&BINARY_HEADER, length_header(length));
        }
        None => {
            headers.insert(CONTENT_TYPE, answer::JSON);
        }
    }
    let mut response = Response::new(answer::frames(first, rest));
    *response.headers_mut() = headers;
    response
}

fn routing_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(&ROUTING_KEY_HEADER) else { return Ok(None) };
    let key = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Refusal::bad_request(format!("the header {ROUTING_KEY_HEADER} is not UTF-8 text")))?;
    Ok((!key.is_empty()).then(|| key.to_owned()))
}

#[derive(Serialize)]
struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    extensions: &'static [&'static str],
}

impl ServerMetadata {
    const OURS: Self = Self { name: SERVER_NAME, version: env!("CARGO_PKG_VERSION"), extensions: &EXTENSIONS };
}

#[derive(Serialize)]
struct ModelReady<'a> {
    name: &'a str,
    ready: bool,
}

#[derive(Serialize)]
struct ModelMetadata<'a> {
    name: &'a str,
    versions: Vec<String>,
    platform: &'static str,
    inputs: Vec<TensorMetadata<'a>>,
    outputs: Vec<TensorMetadata<'a>>,
}

#[derive(Serialize)]
struct TensorMetadata<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: Vec<i64>,
}

impl<'a> ModelMetadata<'a> {
    fn of(view: &'a ModelView) -> Self {
        let tensors = |specs: &'a [TensorSpec]| specs.iter().map(TensorMetadata::of).collect();
        Self {
            name: view.name.as_str(),
            versions: view.versions.iter().map(ToString::to_string).collect(),
            platform: PLATFORM,
            inputs: tensors(&view.signature.inputs),
            outputs: tensors(&view.signature.outputs),
        }
    }
}

impl<'a> TensorMetadata<'a> {
    fn of(spec: &'a TensorSpec) -> Self {
        Self { name: &spec.name, datatype: spec.datatype.name(), shape: spec.wire_shape() }
    }
}
