//! The paths of the inference plane.
//!
//! A path is split first and each segment percent-decoded after, so that `%2F` can never
//! become a separator. One trailing slash is tolerated; an empty segment is not.

use std::borrow::Cow;

use super::extensions::Extension;
use crate::{
    domain::Target,
    fault::ErrorCode,
    protocol::refusal::{Refusal, shown},
};

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Server,
    Live,
    Ready,
    Extension(Extension),
    /// The name is as the client gave it, not yet checked.
    Model {
        name: Cow<'a, str>,
        selector: Selector<'a>,
        verb: Verb,
    },
}

/// Which version of the model, as the client gave it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Selector<'a> {
    Release,
    Version(Cow<'a, str>),
    Label(Cow<'a, str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Metadata,
    Ready,
    Config,
    Infer,
    Statistics,
    TraceSettings,
}

impl Route<'_> {
    /// The methods that the path answers to, as the header `Allow` has them.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Self::Model { verb: Verb::Infer, .. } => "POST",
            Self::Model { verb: Verb::TraceSettings, .. } => Extension::TraceSettings.allow(),
            Self::Extension(extension) => extension.allow(),
            _ => "GET, HEAD",
        }
    }

    pub(super) fn allows(&self, method: &http::Method) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }
}

impl Selector<'_> {
    pub(super) fn target(&self) -> Result<Target, Refusal> {
        Ok(match self {
            Self::Release => Target::Release,
            Self::Version(text) => Target::Version(text.parse()?),
            Self::Label(text) => Target::Label(text.parse()?),
        })
    }
}

/// Reads a path.
pub(super) fn parse(path: &str) -> Result<Route<'_>, Refusal> {
    let unknown = || Refusal::new(ErrorCode::NotFound, format!("the path '{}' is unknown{}", shown(path), hint(path)));
    let inner = path.strip_prefix('/').ok_or_else(unknown)?;
    let mut segments = inner.strip_suffix('/').unwrap_or(inner).split('/').map(decode);
    let mut next = || segments.next().transpose();

    if next()?.as_deref() != Some("v2") {
        return Err(unknown());
    }
    let route = match (next()?.as_deref(), next()?) {
        (None, _) => Route::Server,
        (Some("health"), Some(check)) if check == "live" => Route::Live,
        (Some("health"), Some(check)) if check == "ready" => Route::Ready,
        (Some("models"), Some(name)) if !name.is_empty() => {
            let mut word = next()?;
            let selector = match word.as_deref() {
                Some("versions") => Selector::Version(next()?.ok_or_else(unknown)?),
                Some("labels") => Selector::Label(next()?.ok_or_else(unknown)?),
                _ => Selector::Release,
            };
            if selector != Selector::Release {
                word = next()?;
            }
            let verb = match word.as_deref() {
                // As in Triton, directly after `models` it is no model's name.
                None if name == "stats" && selector == Selector::Release => {
                    return Ok(Route::Extension(Extension::Statistics));
                }
                None => Verb::Metadata,
                Some("stats") => Verb::Statistics,
                Some("trace") if next()?.as_deref() == Some("setting") => Verb::TraceSettings,
                Some("ready") => Verb::Ready,
                Some("config") => Verb::Config,
                Some("infer") => Verb::Infer,
                Some(_) => return Err(unknown()),
            };
            Route::Model { name, selector, verb }
        }
        (Some("trace"), Some(word)) if word == "setting" => Route::Extension(Extension::TraceSettings),
        (Some("logging"), None) => Route::Extension(Extension::LogSettings),
        (Some("repository"), Some(word)) if word == "index" => Route::Extension(Extension::RepositoryIndex),
        (Some("repository"), Some(word)) if word == "models" => match (next()?, next()?.as_deref()) {
            (Some(_), Some("load" | "unload")) => Route::Extension(Extension::LoadAndUnload),
            _ => return Err(unknown()),
        },
        // Whatever is asked of it, the answer is the same.
        (Some("systemsharedmemory" | "cudasharedmemory"), Some(_)) => {
            return Ok(Route::Extension(Extension::SharedMemory));
        }
        _ => return Err(unknown()),
    };
    if next()?.is_some() { Err(unknown()) } else { Ok(route) }
}

/// Where what was looked for at an unknown path is, by what other servers have there.
#[cold]
fn hint(path: &str) -> &'static str {
    let lower = path.get(..256).unwrap_or(path).to_ascii_lowercase();
    let begins = |starts: &[&str]| starts.iter().any(|start| lower.starts_with(start));
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if begins(&["/metrics"]) {
        ": metrics are on a port of their own, 8002 unless configured otherwise"
    } else if begins(&["/admin", "/v2/repository/models"]) {
        ": the admin API is on a port of its own, 8003 unless configured otherwise"
    } else if begins(&[
        "/livez",
        "/readyz",
        "/healthz",
        "/health",
        "/ping",
        "/live",
        "/ready",
        "/v2/health",
        "/v1/health",
    ]) {
        ": health is at /v2/health/live and /v2/health/ready"
    } else if begins(&["/v1", "/infer"]) || has(&["predict", "invocations", "classify", "regress", "score", "/infer"]) {
        ": inference is POST /v2/models/{model}/infer (Open Inference Protocol)"
    } else if begins(&["/v2/models"]) {
        ": a model is at /v2/models/{model}, inference at /v2/models/{model}/infer, the list of models at POST /v2/repository/index"
    } else {
        ": inference is POST /v2/models/{model}/infer; GET /v2 tells about this server"
    }
}

/// One segment with its `%`-escapes resolved.
fn decode(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    if !segment.contains('%') {
        return Ok(Cow::Borrowed(segment));
    }
    let broken = || Refusal::bad_request("the path has a broken %-escape");
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            let (Some(high), Some(low)) = (digit(), digit()) else { return Err(broken()) };
            decoded.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits make a byte"));
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| broken())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fault::Fault;

    fn model<'a>(name: &'a str, selector: Selector<'a>, verb: Verb) -> Route<'a> {
        Route::Model { name: name.into(), selector, verb }
    }

    #[test]
    fn path_of_the_protocol_is_known_with_and_without_a_trailing_slash() {
        let version = || Selector::Version("3".into());
        let label = || Selector::Label("champion".into());
        let table = [
            ("/v2", Route::Server),
            ("/v2/health/live", Route::Live),
            ("/v2/health/ready", Route::Ready),
            ("/v2/models/m", model("m", Selector::Release, Verb::Metadata)),
            ("/v2/models/m/ready", model("m", Selector::Release, Verb::Ready)),
            ("/v2/models/m/infer", model("m", Selector::Release, Verb::Infer)),
            ("/v2/models/m/config", model("m", Selector::Release, Verb::Config)),
            ("/v2/models/m/labels/champion/config", model("m", label(), Verb::Config)),
            ("/v2/models/m/versions/3", model("m", version(), Verb::Metadata)),
            ("/v2/models/m/versions/3/ready", model("m", version(), Verb::Ready)),
            ("/v2/models/m/versions/3/infer", model("m", version(), Verb::Infer)),
            ("/v2/models/m/labels/champion", model("m", label(), Verb::Metadata)),
            ("/v2/models/m/labels/champion/infer", model("m", label(), Verb::Infer)),
            ("/v2/models/car%5Floan/infer", model("car_loan", Selector::Release, Verb::Infer)),
            ("/v2/models/stats", Route::Extension(Extension::Statistics)),
            ("/v2/models/m/stats", model("m", Selector::Release, Verb::Statistics)),
            ("/v2/models/stats/stats", model("stats", Selector::Release, Verb::Statistics)),
            ("/v2/models/stats/versions/3", model("stats", version(), Verb::Metadata)),
            ("/v2/models/m/versions/3/stats", model("m", version(), Verb::Statistics)),
            ("/v2/models/m/labels/champion/stats", model("m", label(), Verb::Statistics)),
            ("/v2/models/m/trace/setting", model("m", Selector::Release, Verb::TraceSettings)),
            ("/v2/trace/setting", Route::Extension(Extension::TraceSettings)),
            ("/v2/logging", Route::Extension(Extension::LogSettings)),
            ("/v2/repository/index", Route::Extension(Extension::RepositoryIndex)),
            ("/v2/repository/models/m/load", Route::Extension(Extension::LoadAndUnload)),
            ("/v2/systemsharedmemory/status", Route::Extension(Extension::SharedMemory)),
            ("/v2/cudasharedmemory/region/r/register", Route::Extension(Extension::SharedMemory)),
            // Whether such a name can exist is for the name itself to say.
            ("/v2/models/a%2Fb", model("a/b", Selector::Release, Verb::Metadata)),
            ("/v2/models/%2e%2e/infer", model("..", Selector::Release, Verb::Infer)),
        ];
        for (path, route) in table {
            assert_eq!(parse(path).unwrap(), route, "{path}");
            assert_eq!(parse(&format!("{path}/")).unwrap(), route, "{path}/");
        }
    }

    #[test]
    fn path_outside_the_protocol_is_not_found() {
        for path in [
            "/",
            "",
            "*",
            "//v2",
            "/v1",
            "/v2//",
            "/V2",
            "/v2/health",
            "/v2/health/up",
            "/v2/health/live/x",
            "/v2/models",
            "/v2/models//infer",
            "/v2/models/m/versions",
            "/v2/models/m/labels/",
            "/v2/models/m/trace",
            "/v2/models/m/trace/x",
            "/v2/trace",
            "/v2/logging/x",
            "/v2/repository/models/m",
            "/v2/repository/index/x",
            "/v2/models/m/infer/x",
            "/v2/models/m/infer//",
            "/v2/models/m/versions/1/labels/a",
            "/v2/models/a/../b/infer",
        ] {
            assert_eq!(parse(path).unwrap_err().code(), ErrorCode::NotFound, "{path}");
        }
    }

    #[test]
    fn unknown_path_is_told_with_the_one_that_is_meant() {
        for (path, words) in [
            ("/predict", "POST /v2/models/{model}/infer"),
            ("/v1/models/m:predict", "POST /v2/models/{model}/infer"),
            ("/v2/models/m/predict", "POST /v2/models/{model}/infer"),
            ("/v2/m/infer", "POST /v2/models/{model}/infer"),
            ("/invocations", "POST /v2/models/{model}/infer"),
            ("/", "POST /v2/models/{model}/infer; GET /v2 tells"),
            ("/v2/models", "POST /v2/repository/index"),
            ("/metrics", "8002"),
            ("/admin/v1/models", "8003"),
            ("/healthz", "/v2/health/ready"),
            ("/v2/health", "/v2/health/ready"),
        ] {
            let told = parse(path).unwrap_err().to_string();
            assert!(told.starts_with(&format!("the path '{path}' is unknown: ")) && told.contains(words), "{told}");
        }
    }

    #[test]
    fn escape_that_is_broken_is_a_bad_request() {
        for path in ["/v2/models/%", "/v2/models/%4", "/v2/models/%zz/infer", "/v2/models/%ff"] {
            assert_eq!(parse(path).unwrap_err().code(), ErrorCode::BadRequest, "{path}");
        }
    }

    #[test]
    fn selector_that_cannot_exist_is_a_bad_request() {
        for selector in [Selector::Version("abc".into()), Selector::Version("0".into()), Selector::Label("7".into())] {
            assert_eq!(selector.target().unwrap_err().code(), ErrorCode::BadRequest);
        }
    }

    #[test]
    fn method_is_that_of_the_verb() {
        use http::Method;
        let infer = model("m", Selector::Release, Verb::Infer);
        assert!(infer.allows(&Method::POST) && !infer.allows(&Method::GET) && !infer.allows(&Method::HEAD));
        assert!(Route::Server.allows(&Method::GET) && Route::Server.allows(&Method::HEAD));
        assert!(!Route::Server.allows(&Method::POST) && !Route::Server.allows(&Method::DELETE));
    }

    proptest! {
        #[test]
        fn any_path_parses_without_panic(path in "(/v2/models/)?[/%a-z0-9é.]{0,40}") {
            let _ = parse(&path);
        }
    }
}
