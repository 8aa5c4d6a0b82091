//! The composition root: builds each room from its part of the configuration, binds the four
//! planes, runs them, and stops them in order.
//!
//! Two sets of threads: the data planes (HTTP and gRPC inference) share the main runtime; the
//! control planes (metrics and admin) have a thread and a runtime of their own, so that a
//! saturated data plane cannot starve `/metrics`, `/readyz` or a rollback.
//!
//! Stopping, in order: (1) not ready any more, (2) the data planes accept nothing new and
//! finish what they have begun, (3) the control planes end, (4) the last spans are sent. What
//! has not finished after `server.drain_timeout` is cut off, and the exit code is 1.

mod control;
mod start_up;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::control::ControlPlanes;
use crate::{
    config::{Address, Config, MonitorConfig, ReadinessPolicy},
    domain::{ModelName, Version},
    engine::{PoolOptions, Runtime, find_library},
    events::{Event, Events, Topic},
    gateway::Gateway,
    lifecycle::{Readiness, stop_signal},
    monitor::{
        Change, Clock, ExportSettings, Keeper, KeeperOptions, Monitor, MonitorCollector, MonitorHandle,
        MonitorSettings, Thresholds, window_label,
    },
    observe::TritonCollector,
    protocol::{
        BodyBudget, Cors, DoorOptions, Listeners, MaxAge, ServerSettings, decode_json_request, serve_grpc, serve_http,
    },
    registry::{
        AdmissionOptions, Registry, RegistryOptions, RolloutDriver, ServingDefaults, Watcher, Watchers, bytes_or_share,
        cores,
    },
    route::{RoutePublisher, Routes, routes},
    schedule::Pool,
    shadow::{Shadow, ShadowOptions},
    store::Store,
    telemetry::{self, LogControl, Metrics},
};

/// Runs the gateway until it is told to stop.
///
/// # Errors
/// When it cannot start, or was cut off before everything was finished.
pub fn serve(config: &Config, addresses_file: Option<&Path>) -> Result<()> {
    // With one core there is nobody to share work with: the simpler scheduler is the faster one.
    let mut builder = match cores() {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.enable_all().thread_name("request").build()?;
    let outcome = runtime.block_on(run(config, addresses_file));
    // Work on blocking threads that will not end must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn run(config: &Config, addresses_file: Option<&Path>) -> Result<()> {
    let tracing = telemetry::init(&config.telemetry)?;
    let planes = Planes::bind(config).await?;
    let app = App::build(config, tracing.logs())?;
    planes.announce(addresses_file)?;
    let outcome = app.run(config, planes).await;
    // The exporter blocks: not on a thread that drives it.
    tokio::task::spawn_blocking(move || tracing.flush()).await?;
    outcome
}

/// The bound listeners. Binding comes first: a port that is taken is found before models load.
struct Planes {
    http: Listeners,
    grpc: Listeners,
    metrics: Listeners,
    admin: Listeners,
}

impl Planes {
    async fn bind(config: &Config) -> Result<Self> {
        let server = &config.server;
        Ok(Self {
            http: listen("server.http", &server.http).await?,
            grpc: listen("server.grpc", &server.grpc).await?,
            metrics: listen("server.metrics", &server.metrics).await?,
            admin: listen("server.admin", &server.admin).await?,
        })
    }

    fn addresses(&self) -> Result<start_up::Addresses> {
        Ok(start_up::Addresses {
            http: self.http.local_addr()?,
            grpc: self.grpc.local_addr()?,
            metrics: self.metrics.local_addr()?,
            admin: self.admin.local_addr()?,
        })
    }

    fn announce(&self, file: Option<&Path>) -> Result<()> {
        let addresses = self.addresses()?;
        tracing::info!(
            http = %addresses.http, grpc = %addresses.grpc, metrics = %addresses.metrics, admin = %addresses.admin,
            "listening"
        );
        file.map_or(Ok(()), |file| addresses.write(file))
    }
}

fn door_options(config: &Config, settings: ServerSettings) -> Result<DoorOptions> {
    let server = &config.server;
    Ok(DoorOptions {
        max_body_bytes: usize::try_from(server.max_request_size.0)?,
        budget: BodyBudget::new(usize::try_from(server.max_inflight_size.0)?),
        body_timeout: server.body_timeout.0,
        idle_timeout: server.idle_timeout.0,
        max_age: MaxAge::new(server.max_connection_age.0, server.max_connection_age_grace.0),
        cors: Cors::new(&server.cors_origins),
        nonfinite: config.protocol.nonfinite,
        settings,
    })
}

async fn listen(key: &str, address: &Address) -> Result<Listeners> {
    let found = {
        let address = address.clone();
        // Looking a name up blocks.
        tokio::task::spawn_blocking(move || address.resolve()).await?
    };
    let found = found.with_context(|| format!("cannot look up the host of {address} ({key})"))?;
    Listeners::bind(&found).await.with_context(|| format!("cannot listen on {address} ({key})"))
}

/// Every room, built and wired; nothing is served yet.
struct App {
    gateway: Arc<Gateway>,
    registry: Registry,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    runtime: Runtime,
    events: Events,
    logs: LogControl,
    monitor: MonitorHandle,
    keeper: Keeper,
}

impl App {
    fn build(config: &Config, logs: LogControl) -> Result<Self> {
        let models = &config.repository.models;
        if !models.is_dir() {
            // A typo must not become a gateway that is ready and serves nothing.
            bail!("the model repository {} is not a directory (--models, repository.models)", models.display());
        }
        // Nor must one that may not be read.
        std::fs::read_dir(models).with_context(|| {
            format!("cannot read the model repository {} (--models, repository.models)", models.display())
        })?;
        let metrics = Arc::new(Metrics::new());
        let readiness = Readiness::new(config.server.readiness == ReadinessPolicy::All);
        // Since the epoch, so that what is saved of windows fits the next run; steady within a run.
        let (epoch, started) = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now());
        let clock: Clock = Arc::new(move || epoch + started.elapsed());
        let (runtime, library) = load_runtime(config)?;
        let monitor = Monitor::start(Arc::clone(&clock), config.monitor.max_rows_per_second)
            .context("cannot start the monitor's thread")?
            .handle();
        let (routes, publisher) = routes();
        let events = Events::default();
        let shadow = start_shadow(config, &monitor, &metrics)?;
        let (told, copied) = (events.clone(), shadow.clone());
        let watchers = Watchers { monitor: monitor.clone(), clock: Arc::clone(&clock), events: told, shadow: copied };
        let admission = AdmissionOptions::of(&config.admission, &library, decode_json_request);
        let admission = admission.map_err(anyhow::Error::msg)?;
        let registry = build_registry(config, &runtime, admission, publisher, watchers, &metrics)?;
        register_monitor(&config.monitor, &metrics, &registry, &monitor, &clock)?;
        if config.metrics.triton_names {
            let serving = registry.clone();
            metrics.register(Box::new(TritonCollector::new(move || serving.all_serving())?));
        }
        let keeper = start_keeper(config, &registry, &clock, &events)?;
        let gateway = build_gateway(routes, &monitor, &shadow, &metrics, &readiness);
        Ok(Self { gateway, registry, metrics, readiness, runtime, events, logs, monitor, keeper })
    }

    async fn run(self, config: &Config, planes: Planes) -> Result<()> {
        let addresses = planes.addresses()?;
        let Planes { http, grpc, metrics, admin } = planes;
        let control = ControlPlanes::start(&self, metrics, admin)?;
        let options = door_options(config, self.settings(config))?;
        let shutdown = CancellationToken::new();
        let mut doors = JoinSet::new();
        doors.spawn(serve_http(http, Arc::clone(&self.gateway), options.clone(), shutdown.clone()));
        doors.spawn(serve_grpc(grpc, Arc::clone(&self.gateway), options, shutdown.clone()));

        let watcher = Watcher::start(self.registry.clone(), config.repository.poll_interval.0)?;
        let rollouts = RolloutDriver::start(self.registry.clone(), config.rollout.look_interval.0)?;
        self.announce_when_ready(config, addresses);
        let aging = tokio::spawn(release_unused_memory(self.runtime.clone()));
        let signal = tokio::select! {
            signal = stop_signal() => signal?,
            _ = doors.join_next() => bail!("a door ended by itself: this is a bug"),
        };

        tracing::info!(signal, "stopping: finishing the requests in flight");
        self.readiness.stop();
        aging.abort();
        shutdown.cancel();
        let (registry, monitor, keeper) = (self.registry.clone(), self.monitor, self.keeper);
        let drained = tokio::time::timeout(config.server.drain_timeout.0, doors.join_all()).await;
        tokio::task::spawn_blocking(move || {
            drop(watcher);
            drop(rollouts);
            control.stop();
            // What is answered is counted, then saved.
            let _ = monitor.settle(SETTLE);
            drop(keeper);
            registry.flush();
        })
        .await?;
        if drained.is_err() {
            bail!("some requests did not finish within {}", config.server.drain_timeout);
        }
        tracing::info!("stopped");
        Ok(())
    }

    fn settings(&self, config: &Config) -> ServerSettings {
        let telemetry = &config.telemetry;
        let is_traced = !telemetry.otlp_endpoint.is_empty();
        ServerSettings { trace_ratio: is_traced.then_some(telemetry.trace_ratio), logs: self.logs.clone() }
    }

    fn announce_when_ready(&self, config: &Config, addresses: start_up::Addresses) {
        let (registry, version) = (self.registry.clone(), self.runtime.version().to_owned());
        let (models, gateway) = (config.repository.models.clone(), Arc::clone(&self.gateway));
        tokio::task::spawn_blocking(move || {
            registry.wait_until_complete();
            let unready = gateway.unready().map(|why| why.to_string());
            start_up::say_ready(&registry, &models, &version, addresses, unready.as_deref());
        });
    }
}

/// Without end.
async fn release_unused_memory(runtime: Runtime) {
    let mut whiles = tokio::time::interval(Runtime::AGING_INTERVAL);
    whiles.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        whiles.tick().await;
        let runtime = runtime.clone();
        // To give back many pages takes the system a while.
        let _ = tokio::task::spawn_blocking(move || runtime.release_unused_memory()).await;
    }
}

/// How long the end of the program waits for the monitor to count what was answered.
const SETTLE: Duration = Duration::from_secs(2);

/// The runtime, and where its library is.
fn load_runtime(config: &Config) -> Result<(Runtime, PathBuf)> {
    let variable = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let library = find_library(variable, config.runtime.library.as_deref())?;
    let threads = config.runtime.intra_op_threads;
    let threads = if threads == 0 { cores() } else { threads };
    let pool = PoolOptions { threads, spinning: config.runtime.spinning };
    let runtime = Runtime::load(&library, pool, bytes_or_share(config.runtime.max_memory, 2))?;
    // Trials load it from elsewhere.
    Ok((runtime, library.canonicalize()?))
}

fn build_registry(
    config: &Config,
    runtime: &Runtime,
    admission: AdmissionOptions,
    publisher: RoutePublisher,
    watchers: Watchers,
    metrics: &Arc<Metrics>,
) -> Result<Registry> {
    let store = Store::open_with_reserve(&config.state.directory, config.state.reserve.0)?;
    let pool = Pool::start(cores(), Handle::current()).context("cannot start the threads of runs")?;
    let options = RegistryOptions {
        pool,
        models: config.repository.models.clone(),
        settle: config.repository.settle.0,
        load_threads: config.repository.load_threads,
        policy: config.release.policy,
        allow_pinning: config.release.allow_pinning,
        evict_previous: config.release.evict_previous,
        reload_changed: config.release.reload_changed,
        model_memory: Some(config.limits.model_memory.0).filter(|bytes| *bytes > 0),
        rollout: config.rollout.clone(),
        admission,
        recent_requests: config.warmup.recent_requests,
        serving: ServingDefaults { scheduler: config.scheduler.clone(), batching: config.batching.clone() },
        monitor: config.monitor.enabled.then(|| monitor_settings(config)),
    };
    Ok(Registry::new(options, runtime.clone(), store, publisher, watchers, metrics)?)
}

fn start_shadow(config: &Config, monitor: &MonitorHandle, metrics: &Arc<Metrics>) -> Result<Shadow> {
    let shadow = &config.shadow;
    let max_queue_bytes = usize::try_from(shadow.max_queue_size.0)?;
    let options = ShadowOptions { threads: shadow.threads, max_queue: shadow.max_queue, max_queue_bytes };
    Shadow::start(options, monitor, metrics).context("cannot start the threads of shadow runs")
}

fn monitor_settings(config: &Config) -> MonitorSettings {
    let monitor = &config.monitor;
    let thresholds = Thresholds {
        warning: monitor.warning,
        drift: monitor.drift,
        share_warning: monitor.share_warning,
        share_drift: monitor.share_drift,
        min_rows: monitor.min_rows,
        false_alarm_interval: monitor.false_alarm_interval.0,
        clear_ratio: monitor.clear_ratio,
    };
    MonitorSettings {
        windows: monitor.windows.iter().map(|window| window.0).collect(),
        thresholds,
        segments: monitor.segments.clone(),
        max_segments: monitor.max_segments,
        contract: monitor.contract.into(),
        baseline: monitor.baseline.into(),
        directory: Some(monitor_directory(config)),
        ..MonitorSettings::default()
    }
}

/// How much longer than the longest window the monitor keeps what it has of a version that is gone: who misses it should
/// notice by then.
const KEEP_GONE: Duration = Duration::from_hours(7 * 24);

/// Where the monitor keeps counts and learnt profiles.
fn monitor_directory(config: &Config) -> PathBuf {
    config.state.directory.join("monitor")
}

/// Looks at drift from now on, and tells of it.
fn start_keeper(config: &Config, registry: &Registry, clock: &Clock, events: &Events) -> Result<Keeper> {
    let (watched, listed, events) = (registry.clone(), registry.clone(), events.clone());
    let longest = config.monitor.windows.iter().map(|window| window.0).max().unwrap_or_default();
    let options = KeeperOptions {
        versions: Box::new(move || watched.watched()),
        clock: Arc::clone(clock),
        directory: monitor_directory(config),
        save_interval: config.monitor.save_interval.0,
        known: Box::new(move || listed.known_versions()),
        keep_gone: longest + KEEP_GONE,
        tell: Box::new(move |model, version, change| tell_of_drift(&events, model, version, change)),
    };
    Keeper::start(options).context("cannot start the thread that looks at drift")
}

/// Says of a verdict that changed in the log and as an event.
fn tell_of_drift(events: &Events, model: &ModelName, version: Version, change: &Change) {
    let (state, before, window) = (change.now.as_str(), change.before.as_str(), window_label(change.window));
    let (version_number, features, message) = (version.get(), change.names(), change.to_string());
    if change.is_worse() {
        tracing::warn!(%model, version = version_number, features, window, state, before, "{message}");
    } else {
        tracing::info!(%model, version = version_number, features, window, state, before, "{message}");
    }
    events.publish(Event::new(Topic::Drift, model, state, message).of_version(version));
}

fn register_monitor(
    config: &MonitorConfig,
    metrics: &Metrics,
    registry: &Registry,
    monitor: &MonitorHandle,
    clock: &Clock,
) -> prometheus::Result<()> {
    let registry = registry.clone();
    let export = ExportSettings { features: config.export.clone(), max_series: config.max_series };
    let collector = MonitorCollector::new(monitor.clone(), Arc::clone(clock), export, move || registry.watched())?;
    metrics.register(Box::new(collector));
    Ok(())
}

fn build_gateway(
    routes: Routes,
    monitor: &MonitorHandle,
    shadow: &Shadow,
    metrics: &Arc<Metrics>,
    readiness: &Readiness,
) -> Arc<Gateway> {
    Arc::new(Gateway::new(routes, monitor.clone(), shadow.clone(), Arc::clone(metrics), readiness.clone()))
}
