//! Tests of Triton's extensions over real connections, with a stand-in behind the door.

use std::collections::HashMap;

use tonic::{Code, Status, codec::CompressionEncoding};

use super::wire_tests::Plane;
use crate::proto::inference::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryStatusRequest, CudaSharedMemoryUnregisterRequest,
    LogSettingsRequest, ModelStatisticsRequest, RepositoryIndexRequest, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest, StatisticDuration, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryUnregisterRequest, TraceSettingRequest, log_settings_request,
    log_settings_response::setting_value::ParameterChoice, trace_setting_request,
};

fn unimplemented<T: std::fmt::Debug>(answer: Result<T, Status>, words: &str) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains(words), "{status}");
}

#[tokio::test]
async fn statistics_are_those_of_one_model_or_of_all() {
    let plane = Plane::start().await;
    let mut client = plane.client();
    let asked = |name: &str, version: &str| ModelStatisticsRequest { name: name.into(), version: version.into() };
    for (name, version) in [("", ""), ("echo", ""), ("echo", "2"), ("echo", "champion")] {
        let mut all = client.model_statistics(asked(name, version)).await.unwrap().into_inner().model_stats;
        let echo = all.remove(0);
        assert_eq!((echo.name.as_str(), echo.version.as_str()), ("echo", "2"));
        assert_eq!((echo.last_inference, echo.inference_count, echo.execution_count), (1_700_000_000_123, 12, 3));
        let stats = echo.inference_stats.unwrap();
        assert_eq!(stats.success, Some(StatisticDuration { count: 4, ns: 400_000 }));
        assert_eq!(stats.queue, Some(StatisticDuration { count: 4, ns: 40_000 }));
        assert_eq!(stats.cache_hit, Some(StatisticDuration::default()));
        assert_eq!(echo.batch_stats[0].batch_size, 4);
        assert_eq!(echo.batch_stats[0].compute_infer, Some(StatisticDuration { count: 3, ns: 225_000 }));
    }
    assert_eq!(client.model_statistics(asked("nobody", "")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.model_statistics(asked("echo", "0")).await.unwrap_err().code(), Code::InvalidArgument);

    // Such an answer is compressed for whoever takes it so.
    let mut client = plane.client().accept_compressed(CompressionEncoding::Gzip);
    let answer = client.model_statistics(asked("", "")).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").unwrap(), "gzip");
    plane.stop().await;
}

#[tokio::test]
async fn index_lists_versions_without_reasons() {
    let plane = Plane::start().await;
    let mut client = plane.client();
    for (ready, states) in [(false, &["READY", "READY", "UNAVAILABLE"][..]), (true, &["READY", "READY"])] {
        let asked = RepositoryIndexRequest { ready, ..RepositoryIndexRequest::default() };
        let listed = client.repository_index(asked).await.unwrap().into_inner().models;
        assert_eq!(listed.iter().map(|model| model.state.as_str()).collect::<Vec<_>>(), states);
        assert!(listed.iter().all(|model| model.reason.is_empty()));
    }
    plane.stop().await;
}

#[tokio::test]
async fn settings_are_shown_and_not_changed() {
    let plane = Plane::start().await;
    let mut client = plane.client();
    let asked = |model: &str| TraceSettingRequest { model_name: model.into(), ..TraceSettingRequest::default() };
    for model in ["", "echo"] {
        let shown = client.trace_setting(asked(model)).await.unwrap().into_inner().settings;
        assert_eq!(shown["trace_level"].value, ["OFF"]);
    }
    assert_eq!(client.trace_setting(asked("nobody")).await.unwrap_err().code(), Code::NotFound);
    let shown = client.log_settings(LogSettingsRequest::default()).await.unwrap().into_inner().settings;
    assert_eq!(shown["log_info"].parameter_choice, Some(ParameterChoice::BoolParam(true)));
    assert_eq!(shown["log_verbose_level"].parameter_choice, Some(ParameterChoice::Uint32Param(0)));

    let settings = HashMap::from([("trace_rate".to_owned(), trace_setting_request::SettingValue::default())]);
    let status = client.trace_setting(TraceSettingRequest { settings, ..asked("") }).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("telemetry.trace_ratio"), "{status}");
    let settings = HashMap::from([("log_info".to_owned(), log_settings_request::SettingValue::default())]);
    let status = client.log_settings(LogSettingsRequest { settings }).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("POST /v2/logging on the admin plane"), "{status}");
    plane.stop().await;
}

#[tokio::test]
async fn what_is_not_done_here_says_what_to_use() {
    let plane = Plane::start().await;
    let mut client = plane.client();
    unimplemented(client.repository_model_load(RepositoryModelLoadRequest::default()).await, "admin plane");
    unimplemented(client.repository_model_unload(RepositoryModelUnloadRequest::default()).await, "admin plane");
    let words = "send tensors in the request";
    unimplemented(client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await, words);
    unimplemented(client.system_shared_memory_register(SystemSharedMemoryRegisterRequest::default()).await, words);
    unimplemented(client.system_shared_memory_unregister(SystemSharedMemoryUnregisterRequest::default()).await, words);
    unimplemented(client.cuda_shared_memory_status(CudaSharedMemoryStatusRequest::default()).await, words);
    unimplemented(client.cuda_shared_memory_register(CudaSharedMemoryRegisterRequest::default()).await, words);
    unimplemented(client.cuda_shared_memory_unregister(CudaSharedMemoryUnregisterRequest::default()).await, words);
    plane.stop().await;
}
