//! The REST side of the admin plane as a table, and the `OpenAPI` document made of it.
//!
//! One table says what there is: the index at `/`, the document at `/admin/v1/openapi.json`, and the tests
//! that hold both against the router and against the gRPC service come from it. The schemas are those
//! of the wire types themselves.

use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::wire::{
    DriftReport, DriftSelfTest, ErrorBody, Event, History, LogChangeBody, ModelList, ModelStatus, ReasonBody, Release,
    RepositoryEntry, RepositoryIndexBody, RepositoryModelBody, RollbackBody, RolloutBody, RolloutStatus, SplitBody,
    VersionBody, VersionStatus,
};
use crate::protocol::LogSettings;

/// One operation of the admin plane.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// The name of the same operation over gRPC; Triton's and a few others exist over REST only.
    pub(super) id: &'static str,
    summary: &'static str,
    query: &'static [Parameter],
    /// Takes the headers of a change.
    is_change: bool,
    body: Option<Of>,
    answer: Answer,
}

type Of = fn(&mut SchemaGenerator) -> Schema;

enum Answer {
    Json(Of),
    /// Server-sent events, each with such data.
    Events(Of),
}

/// A query parameter: its name, its JSON type, and what it does.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = ("dry_run", "boolean", "Check, and answer as it would be; change nothing.");
const REASON: Parameter = ("reason", "string", "Why, for the audit log; that of the body wins.");
const EVICT: Parameter = ("evict_previous", "boolean", "Unload the rollback target if there is no room otherwise.");
const CHANGE: &[Parameter] = &[DRY_RUN, REASON];
const PROMOTING: &[Parameter] =
    &[DRY_RUN, REASON, EVICT, ("strict", "boolean", "Refuse (409) where the answer would have warnings.")];
const LOADING: &[Parameter] = &[
    DRY_RUN,
    REASON,
    EVICT,
    ("allow_signature_change", "boolean", "Load it though its inputs or outputs break clients of the stable version."),
    ("accept_changed", "boolean", "Load it though its files are not those that were released."),
];
const HISTORY: &[Parameter] = &[
    ("limit", "integer", "How many entries, from 1 to 10,000; 100 when absent."),
    ("verify", "boolean", "Check the hash chain over the whole audit log."),
];
const DRIFT: &[Parameter] = &[
    ("version", "integer", "The stable one when absent; against stable, the canary."),
    ("window", "string", "A duration such as `5m`; when absent, of the configured ones the one that says most."),
    ("against", "string", "`profile` (also when absent), or `stable`: the live rows of the stable version."),
    ("segment", "string", "Only rows of this segment, as `key=value`."),
];
const SELF_TEST: &[Parameter] = &[
    ("version", "integer", "The stable one when absent."),
    ("window", "string", "As for the drift; as many rows are drawn as it holds."),
];
const EVENTS: &[Parameter] = &[
    ("model", "string", "Only of this model."),
    ("topic", "string", "Only of this topic: release, version, drift or rollout."),
];

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Operation {
    const fn new(method: Method, path: &'static str, id: &'static str, summary: &'static str, answer: Of) -> Self {
        let answer = Answer::Json(answer);
        Self { method, path, id, summary, query: &[], is_change: false, body: None, answer }
    }

    const fn get(path: &'static str, id: &'static str, summary: &'static str, answer: Of) -> Self {
        Self::new(Method::GET, path, id, summary, answer)
    }

    const fn query(mut self, query: &'static [Parameter]) -> Self {
        self.query = query;
        self
    }

    const fn body(mut self, body: Of) -> Self {
        self.body = Some(body);
        self
    }

    const fn change(mut self, query: &'static [Parameter]) -> Self {
        self.is_change = true;
        self.query(query)
    }

    const fn events(mut self, data: Of) -> Self {
        self.answer = Answer::Events(data);
        self
    }
}

/// All that is here.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation::get("/", "GetIndex", "What is here.", of::<Value>),
    Operation::get("/admin/v1/openapi.json", "GetOpenApi", "This document.", of::<Value>),
    Operation::get("/admin/v1/models", "ListModels", "All models with their releases and versions.", of::<ModelList>),
    Operation::get("/admin/v1/models/{model}", "GetModel", "A model with its release and versions.", of::<ModelStatus>),
    Operation::new(
        Method::DELETE,
        "/admin/v1/models/{model}",
        "ForgetModel",
        "Say that a model is gone on purpose: it has no release any more. Its directory must be gone.",
        of::<Release>,
    )
    .change(CHANGE)
    .body(of::<ReasonBody>),
    Operation::new(
        Method::POST,
        "/admin/v1/models/{model}/versions/{version}/load",
        "LoadVersion",
        "Load a version that is on disk; answers when it is ready, or why it failed.",
        of::<VersionStatus>,
    )
    .change(LOADING)
    .body(of::<ReasonBody>),
    Operation::new(
        Method::POST,
        "/admin/v1/models/{model}/versions/{version}/unload",
        "UnloadVersion",
        "Drain and drop a version that the release does not use.",
        of::<VersionStatus>,
    )
    .change(CHANGE)
    .body(of::<ReasonBody>),
    Operation::new(
        Method::POST,
        "/admin/v1/models/{model}/promote",
        "Promote",
        "stable ← version, previous ← the old stable.",
        of::<Release>,
    )
    .change(PROMOTING)
    .body(of::<VersionBody>),
    Operation::new(
        Method::POST,
        "/admin/v1/models/{model}/rollback",
        "Rollback",
        "stable ← previous, or the version that is named; previous ← the old stable.",
        of::<Release>,
    )
    .change(CHANGE)
    .body(of::<RollbackBody>),
    Operation::new(
        Method::PUT,
        "/admin/v1/models/{model}/canary",
        "SetCanary",
        "Give a version a share of the requests.",
        of::<Release>,
    )
    .change(CHANGE)
    .body(of::<SplitBody>),
    Operation::new(
        Method::DELETE,
        "/admin/v1/models/{model}/canary",
        "ClearCanary",
        "End the canary; stable gets its share.",
        of::<Release>,
    )
    .change(CHANGE)
    .body(of::<ReasonBody>),
    Operation::new(
        Method::PUT,
        "/admin/v1/models/{model}/shadow",
        "SetShadow",
        "Give a version copies of a share of the requests, and compare its answers.",
        of::<Release>,
    )
    .change(CHANGE)
    .body(of::<SplitBody>),
    Operation::new(Method::DELETE, "/admin/v1/models/{model}/shadow", "ClearShadow", "End the shadow.", of::<Release>)
        .change(CHANGE)
        .body(of::<ReasonBody>),
    Operation::new(
        Method::PUT,
        "/admin/v1/models/{model}/labels/{label}",
        "SetLabel",
        "Let a label stand for a version.",
        of::<Release>,
    )
    .change(CHANGE)
    .body(of::<VersionBody>),
    Operation::new(
        Method::DELETE,
        "/admin/v1/models/{model}/labels/{label}",
        "ClearLabel",
        "Remove a label.",
        of::<Release>,
    )
    .change(CHANGE)
    .body(of::<ReasonBody>),
    Operation::get(
        "/admin/v1/models/{model}/rollout",
        "GetRollout",
        "The rollout that goes on, or the last one.",
        of::<RolloutStatus>,
    ),
    Operation::new(
        Method::POST,
        "/admin/v1/models/{model}/rollout",
        "StartRollout",
        "Give a version a growing share of the requests, and take it back when it is worse.",
        of::<RolloutStatus>,
    )
    .change(CHANGE)
    .body(of::<RolloutBody>),
    Operation::new(
        Method::DELETE,
        "/admin/v1/models/{model}/rollout",
        "AbortRollout",
        "End the rollout, and the canary with it.",
        of::<RolloutStatus>,
    )
    .change(CHANGE)
    .body(of::<ReasonBody>),
    Operation::new(
        Method::POST,
        "/admin/v1/models/{model}/rollout/pause",
        "PauseRollout",
        "Keep the rollout from advancing; its gates go on.",
        of::<RolloutStatus>,
    )
    .change(CHANGE)
    .body(of::<ReasonBody>),
    Operation::new(
        Method::POST,
        "/admin/v1/models/{model}/rollout/resume",
        "ResumeRollout",
        "Let a paused rollout go on.",
        of::<RolloutStatus>,
    )
    .change(CHANGE)
    .body(of::<ReasonBody>),
    Operation::get("/admin/v1/models/{model}/history", "GetHistory", "The audit log, newest first.", of::<History>)
        .query(HISTORY),
    Operation::get(
        "/admin/v1/models/{model}/drift",
        "GetDrift",
        "How far live requests are from the reference data.",
        of::<DriftReport>,
    )
    .query(DRIFT),
    Operation::get(
        "/admin/v1/models/{model}/drift/self-test",
        "GetDriftSelfTest",
        "How often the monitor errs on rows drawn from the reference data, and how small a shift it finds.",
        of::<DriftSelfTest>,
    )
    .query(SELF_TEST),
    Operation::get("/admin/v1/events", "WatchEvents", "What happens from now on, as server-sent events.", of::<Event>)
        .query(EVENTS)
        .events(of::<Event>),
    Operation::new(
        Method::POST,
        "/v2/repository/index",
        "RepositoryIndex",
        "Triton's index of all versions.",
        of::<Vec<RepositoryEntry>>,
    )
    .body(of::<RepositoryIndexBody>),
    Operation::new(
        Method::POST,
        "/v2/repository/models/{model}/load",
        "RepositoryModelLoad",
        "Triton's load: all versions of a model.",
        of::<Value>,
    )
    .query(CHANGE)
    .body(of::<RepositoryModelBody>),
    Operation::new(
        Method::POST,
        "/v2/repository/models/{model}/unload",
        "RepositoryModelUnload",
        "Triton's unload: all versions of a model.",
        of::<Value>,
    )
    .query(CHANGE)
    .body(of::<RepositoryModelBody>),
    Operation::get("/v2/logging", "GetLogSettings", "Triton's log settings.", of::<LogSettings>),
    Operation::new(
        Method::POST,
        "/v2/logging",
        "ChangeLogSettings",
        "Change what is logged, until the next start.",
        of::<LogSettings>,
    )
    .body(of::<LogChangeBody>),
];

/// What `GET /` lists.
pub(super) fn endpoints() -> Vec<String> {
    let services = [
        "tidegate.admin.v1.AdminService",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    let rest = OPERATIONS.iter().skip(1).map(|operation| {
        let query: Vec<_> = operation.query.iter().map(|(name, ..)| *name).collect();
        let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
        format!("{} {}{query}", operation.method, operation.path)
    });
    rest.chain(services.map(|service| format!("gRPC {service}"))).collect()
}

/// The document, `OpenAPI` 3.1.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let error = of::<ErrorBody>(&mut generator);
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let described = describe(operation, &mut generator, &error);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_lowercase()] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tidegate admin",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Models, releases and drift. The gRPC service tidegate.admin.v1.AdminService says the same; \
                            an operationId is the name of its method.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": generator.take_definitions(true)},
    })
}

fn describe(operation: &Operation, generator: &mut SchemaGenerator, error: &Schema) -> Value {
    let path = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let path = path.map(|name| {
        let kind = if name == "version" { "integer" } else { "string" };
        json!({"name": name, "in": "path", "required": true, "schema": {"type": kind}})
    });
    let query = operation.query.iter().map(|(name, kind, words)| parameter("query", name, kind, words));
    let headers = CHANGE_HEADERS.iter().filter(|_| operation.is_change);
    let headers = headers.map(|(name, words)| parameter("header", name, "string", words));
    let (kind, schema) = match operation.answer {
        Answer::Json(schema) => ("application/json", schema),
        Answer::Events(schema) => ("text/event-stream", schema),
    };
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": path.chain(query).chain(headers).collect::<Vec<_>>(),
        "responses": {
            "200": {"description": "Done.", "content": {kind: {"schema": schema(generator)}}},
            "default": {"description": "Refused, and why.", "content": {"application/json": {"schema": error}}},
        },
    });
    if let Some(body) = operation.body {
        described["requestBody"] = json!({"content": {"application/json": {"schema": body(generator)}}});
    }
    described
}

const CHANGE_HEADERS: [(&str, &str); 3] = [
    ("If-Match", "Refuse (412) unless the release has this generation."),
    ("Idempotency-Key", "Make the change once: the same request with the same key is answered as the first was."),
    ("tidegate-actor", "Who asks, for the audit log; the peer's address when absent."),
];

fn parameter(place: &str, name: &str, kind: &str, words: &str) -> Value {
    json!({"name": name, "in": place, "required": false, "description": words, "schema": {"type": kind}})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every `$ref` in a document.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = document();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(found.len() > 10, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let release = &document["components"]["schemas"]["Release"]["properties"];
        assert!(release["generation"]["type"] == "integer", "{release}");
    }

    /// REST and gRPC have the same operations, under one name.
    #[test]
    fn every_method_of_the_grpc_service_is_an_operation_and_the_other_way_round() {
        let service = crate::proto::DESCRIPTOR_POOL.get_service_by_name("tidegate.admin.v1.AdminService").unwrap();
        let methods: BTreeSet<String> = service.methods().map(|method| method.name().to_owned()).collect();
        let is_admin = |operation: &&Operation| operation.path.starts_with("/admin/v1/");
        let ids = OPERATIONS.iter().filter(is_admin).map(|operation| operation.id.to_owned());
        let ids: BTreeSet<String> = ids.filter(|id| id != "GetOpenApi").collect();
        assert_eq!(ids, methods);
    }
}
