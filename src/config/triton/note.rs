//! The parts of a `config.pbtxt` that say nothing to this gateway, by name.

use crate::proto::inference::{
    ModelConfig, ModelDynamicBatching, model_config::SchedulingChoice, model_queue_policy::TimeoutAction,
};

/// What is set and means nothing here.
pub(super) fn without_meaning(message: &ModelConfig) -> Vec<&'static str> {
    let ModelConfig {
        // Translated, or refused before.
        name: _,
        platform: _,
        backend: _,
        version_policy: _,
        max_batch_size: _,
        default_model_filename: _,
        parameters: _,
        model_warmup: _,
        scheduling_choice,
        input,
        output,
        instance_group,
        // Without meaning.
        runtime,
        batch_input,
        batch_output,
        optimization,
        cc_model_filenames,
        metric_tags,
        model_operations,
        model_transaction_policy,
        model_repository_agents,
        response_cache,
        model_metrics,
    } = message;
    let reshapes = input.iter().any(|it| it.reshape.is_some()) || output.iter().any(|it| it.reshape.is_some());
    let group = |set: fn(&crate::proto::inference::ModelInstanceGroup) -> bool| instance_group.iter().any(set);
    let mut names = named(&[
        ("runtime", !runtime.is_empty()),
        ("batch_input", !batch_input.is_empty()),
        ("batch_output", !batch_output.is_empty()),
        ("optimization", optimization.is_some()),
        ("cc_model_filenames", !cc_model_filenames.is_empty()),
        ("metric_tags", !metric_tags.is_empty()),
        ("model_operations", model_operations.is_some()),
        ("model_transaction_policy.decoupled", model_transaction_policy.as_ref().is_some_and(|it| it.decoupled)),
        ("model_repository_agents", model_repository_agents.is_some()),
        ("response_cache", response_cache.as_ref().is_some_and(|it| it.enable)),
        ("model_metrics", model_metrics.is_some()),
        ("reshape (tensors keep the shape that the model gives them)", reshapes),
        ("input.format", input.iter().any(|it| it.format != 0)),
        ("input.allow_ragged_batch", input.iter().any(|it| it.allow_ragged_batch)),
        ("is_shape_tensor", input.iter().any(|it| it.is_shape_tensor) || output.iter().any(|it| it.is_shape_tensor)),
        ("instance_group.rate_limiter", group(|it| it.rate_limiter.is_some())),
        ("instance_group.profile", group(|it| !it.profile.is_empty())),
        ("instance_group.secondary_devices", group(|it| !it.secondary_devices.is_empty())),
        ("instance_group.host_policy", group(|it| !it.host_policy.is_empty())),
        ("instance_group.passive", group(|it| it.passive)),
    ]);
    if let Some(SchedulingChoice::DynamicBatching(dynamic)) = scheduling_choice {
        names.extend(of_dynamic_batching(dynamic));
    }
    names
}

fn of_dynamic_batching(dynamic: &ModelDynamicBatching) -> Vec<&'static str> {
    let policy = dynamic.default_queue_policy.as_ref();
    named(&[
        ("dynamic_batching.preferred_batch_size", !dynamic.preferred_batch_size.is_empty()),
        ("dynamic_batching.preserve_ordering", dynamic.preserve_ordering),
        ("dynamic_batching.priority_queue_policy", !dynamic.priority_queue_policy.is_empty()),
        (
            "dynamic_batching.default_queue_policy.timeout_action",
            policy.is_some_and(|it| it.timeout_action() == TimeoutAction::Delay),
        ),
    ])
}

fn named(table: &[(&'static str, bool)]) -> Vec<&'static str> {
    table.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect()
}
