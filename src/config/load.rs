//! Reading the configuration: defaults < file < environment < flags, in that order, in one function.

use std::path::{Path, PathBuf};

use super::{Address, Config};

/// What the command line may set.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    pub models: Option<PathBuf>,
    pub state: Option<PathBuf>,
    pub http: Option<Address>,
    pub grpc: Option<Address>,
    pub metrics: Option<Address>,
    pub admin: Option<Address>,
}

/// Why there is no configuration. The text names the file and the line, or the variable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {}", path.display(), plain(&error.to_string()))]
    File { path: PathBuf, error: Box<toml::de::Error> },
    #[error("environment variable {variable}: {reason}")]
    Variable { variable: String, reason: String },
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

/// The prefix of configuration variables; `__` separates the section from the key.
const PREFIX: &str = "TIDEGATE_";

/// OpenTelemetry's own variables, as all its programs know them. Ours win over them.
const OPENTELEMETRY: [(&str, &str); 2] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "TIDEGATE_TELEMETRY__OTLP_ENDPOINT"),
    ("OTEL_SERVICE_NAME", "TIDEGATE_TELEMETRY__SERVICE_NAME"),
];

/// The effective configuration.
///
/// # Errors
/// When the file cannot be read, a key is unknown, or a value makes no sense.
pub fn load(
    file: Option<&Path>,
    variables: impl IntoIterator<Item = (String, String)>,
    overrides: &Overrides,
) -> Result<Config, ConfigError> {
    let mut table = toml::Table::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let wrong = |error| ConfigError::File { path: path.into(), error: Box::new(error) };
        // Read into the types first: only then do errors know their line.
        toml::from_str::<Config>(&text).map_err(wrong)?;
        table = toml::from_str(&text).map_err(wrong)?;
    }
    let mut config: Config = overlay(&mut table, variables)?;
    apply(&mut config, overrides);
    let faults = config.faults();
    if faults.is_empty() {
        return Ok(config);
    }
    Err(ConfigError::Values(faults.into_iter().map(|fault| located(file, &fault)).collect()))
}

/// A fault of a value, with the file and the line when the value stands there. Faults begin
/// with `section.key`.
fn located(file: Option<&Path>, fault: &str) -> String {
    let place = file.and_then(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let (section, key) = fault.split(' ').next()?.split_once('.')?;
        let line = line_of(&text, section, Some(key));
        let is_there = text.lines().nth(line - 1)?.trim().starts_with(key);
        is_there.then(|| format!("{}: line {line}: ", path.display()))
    });
    format!("{}{fault}", place.unwrap_or_default())
}

/// The same in the words of the configuration, not of the program's types.
fn plain(reason: &str) -> String {
    [
        ("expected usize", "expected a whole number, 0 or more"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected f64", "expected a number"),
    ]
    .iter()
    .fold(reason.to_owned(), |reason, (theirs, ours)| reason.replace(theirs, ours))
}

/// All that is wrong with a configuration file, each fault with its line: `load` stops at the
/// first.
#[must_use]
pub fn faults_of_file(path: &Path) -> Vec<String> {
    let whole = match load(Some(path), [], &Overrides::default()) {
        Ok(_) => return Vec::new(),
        Err(ConfigError::Values(faults)) => return faults,
        Err(whole) => whole.to_string(),
    };
    let Some((text, table)) = std::fs::read_to_string(path).ok().and_then(|text| {
        let table = text.parse::<toml::Table>().ok()?;
        Some((text, table))
    }) else {
        return vec![whole];
    };
    let mut faults = Vec::new();
    let (mut good, mut refused) = (table.clone(), Vec::new());
    for (section, keys) in &table {
        // A section by itself, so that an unknown one is told once and not for each of its keys.
        let empty = toml::Table::from_iter([(section.clone(), toml::Table::new().into())]);
        if let Err(reason) = Config::deserialize_from(&empty) {
            faults.push((line_of(&text, section, None), reason));
            good.remove(section);
            continue;
        }
        for (key, value) in keys.as_table().into_iter().flatten() {
            let keys = toml::Table::from_iter([(key.clone(), value.clone())]);
            let single = toml::Table::from_iter([(section.clone(), keys.into())]);
            if let Err(reason) = Config::deserialize_from(&single) {
                faults.push((line_of(&text, section, Some(key)), format!("{section}.{key}: {reason}")));
                refused.push(key.as_str());
                if let Some(keys) = good.get_mut(section).and_then(toml::Value::as_table_mut) {
                    keys.remove(key);
                }
            }
        }
    }
    // What the rest says may make no sense either. Of a key that was refused nothing is known.
    let is_word = |char: char| char.is_alphanumeric() || char == '_';
    let is_of_refused = |fault: &str| fault.split(|char| !is_word(char)).any(|word| refused.contains(&word));
    let senseless = Config::deserialize_from(&good).map(|config| config.faults()).unwrap_or_default();
    for fault in senseless.into_iter().filter(|fault| !is_of_refused(fault)) {
        let place = fault.split(' ').next().and_then(|name| name.split_once('.'));
        faults.push((place.map_or(1, |(section, key)| line_of(&text, section, Some(key))), fault));
    }
    faults.sort();
    let faults: Vec<_> = faults.into_iter().map(|(line, fault)| format!("line {line}: {fault}")).collect();
    if faults.is_empty() { vec![whole] } else { faults }
}

/// The line of a section's heading, or of a key in it; 1 when written in some other form.
fn line_of(text: &str, section: &str, key: Option<&str>) -> usize {
    let heading = format!("[{section}]");
    let lines = || text.lines().map(str::trim).enumerate();
    let Some((start, _)) = lines().find(|(_, line)| line.starts_with(&heading)) else { return 1 };
    let is_key = |line: &str| key.is_some_and(|key| line.split('=').next().is_some_and(|left| left.trim() == key));
    lines().skip(start).find(|(_, line)| is_key(line)).map_or(start, |(line, _)| line) + 1
}

fn overlay(
    table: &mut toml::Table,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut variables: Vec<_> = variables.into_iter().collect();
    // OpenTelemetry's names sort before ours, so that ours are applied last and win.
    variables.sort();
    let convert = |table: &toml::Table| Config::deserialize_from(table);
    let mut config = convert(table).map_err(|reason| ConfigError::Values(vec![reason]))?;
    for (variable, value) in variables {
        let ours = OPENTELEMETRY.iter().find(|(theirs, _)| *theirs == variable).map_or(&*variable, |(_, ours)| ours);
        let Some((section, key)) = ours.strip_prefix(PREFIX).and_then(|rest| rest.split_once("__")) else {
            continue;
        };
        let key = key.to_lowercase();
        let section = table.entry(section.to_lowercase()).or_insert_with(|| toml::Table::new().into());
        if let Some(section) = section.as_table_mut() {
            section.insert(key, scalar(&value));
        }
        // After each one, so that the error can name the variable.
        config = convert(table).map_err(|reason| ConfigError::Variable { variable, reason })?;
    }
    Ok(config)
}

/// Numbers, booleans, lists (`[1, 5, 100]`) and tables (`{ learn = "24h" }`) as such, everything else as text.
fn scalar(value: &str) -> toml::Value {
    let nested = || format!("nested = {value}").parse::<toml::Table>().ok()?.remove("nested");
    if value.starts_with(['[', '{'])
        && let Some(nested @ (toml::Value::Array(_) | toml::Value::Table(_))) = nested()
    {
        nested
    } else if let Ok(flag) = value.parse::<bool>() {
        flag.into()
    } else if let Ok(number) = value.parse::<i64>() {
        number.into()
    } else if let Ok(number) = value.parse::<f64>() {
        number.into()
    } else {
        value.into()
    }
}

fn apply(config: &mut Config, overrides: &Overrides) {
    fn set<T: Clone>(slot: &mut T, value: Option<&T>) {
        if let Some(value) = value {
            slot.clone_from(value);
        }
    }
    set(&mut config.repository.models, overrides.models.as_ref());
    set(&mut config.state.directory, overrides.state.as_ref());
    set(&mut config.server.http, overrides.http.as_ref());
    set(&mut config.server.grpc, overrides.grpc.as_ref());
    set(&mut config.server.metrics, overrides.metrics.as_ref());
    set(&mut config.server.admin, overrides.admin.as_ref());
}

impl Config {
    fn deserialize_from(table: &toml::Table) -> Result<Self, String> {
        table.clone().try_into().map_err(|error: toml::de::Error| plain(error.message()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, Span};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn later_sources_win() {
        let file = file("[server]\nhttp = \"127.0.0.1:1\"\ngrpc = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\n");
        let variables =
            variables(&[("TIDEGATE_SERVER__GRPC", "127.0.0.1:20"), ("TIDEGATE_SERVER__ADMIN", "127.0.0.1:30")]);
        let overrides = Overrides { admin: Some("127.0.0.1:300".parse().unwrap()), ..Overrides::default() };
        let server = load(Some(file.path()), variables, &overrides).unwrap().server;
        assert_eq!([server.http.port(), server.grpc.port(), server.admin.port()], [1, 20, 300]);
        assert_eq!(server.metrics.port(), 8002);
    }

    #[test]
    fn address_is_taken_by_file_environment_and_flag_alike() {
        for text in ["localhost:8000", "[::]:8000", "gateway.example:0"] {
            let file = file(&format!("[server]\nhttp = \"{text}\"\n"));
            let variables = variables(&[("TIDEGATE_SERVER__GRPC", text)]);
            let overrides = Overrides { metrics: Some(text.parse().unwrap()), ..Overrides::default() };
            let server = load(Some(file.path()), variables, &overrides).unwrap().server;
            assert_eq!([server.http, server.grpc, server.metrics].map(|address| address.to_string()), [text; 3]);
        }
        for text in ["8000", "\"8000\"", "\":8000\""] {
            let file = file(&format!("[server]\nhttp = {text}\n"));
            let error = load(Some(file.path()), [], &Overrides::default()).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains("\"127.0.0.1:8000\""), "{error}");
        }
        let variable = variables(&[("TIDEGATE_SERVER__HTTP", "8000")]);
        let error = load(None, variable, &Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("TIDEGATE_SERVER__HTTP") && error.contains("\"0.0.0.0:8000\""), "{error}");
    }

    #[test]
    fn origins_must_be_as_browsers_send_them() {
        let fault = |origins: &str| {
            let file = file(&format!("[server]\ncors_origins = {origins}\n"));
            load(Some(file.path()), [], &Overrides::default()).map_err(|error| error.to_string())
        };
        for good in [r#"["*"]"#, r#"["https://app.example.com", "http://localhost:3000", "http://[::1]:3000"]"#, "[]"] {
            assert!(fault(good).is_ok(), "{good}");
        }
        for bad in
            ["https://app.example.com/", "app.example.com", "https://a b", "https://", "null", "HTTPS://a.example"]
        {
            let error = fault(&format!(r#"["{bad}"]"#)).unwrap_err();
            assert!(
                error.contains("line 2: server.cors_origins") && error.contains(&format!("not \"{bad}\"")),
                "{error}"
            );
        }
    }

    #[test]
    fn unknown_key_is_refused_with_file_line_and_known_keys() {
        let file = file("[server]\nhttp = \"127.0.0.1:1\"\nhtpp = 1\n");
        let error = load(Some(file.path()), [], &Overrides::default()).unwrap_err().to_string();
        for part in [file.path().to_str().unwrap(), "line 3", "htpp", "`grpc`"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }

    #[test]
    fn bad_value_is_refused_with_its_line_and_the_form_expected() {
        let file = file("[monitor]\n\nsave_interval = \"5 parsecs\"\n");
        let error = load(Some(file.path()), [], &Overrides::default()).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("\"250ms\""), "{error}");
    }

    #[test]
    fn bad_variable_is_named() {
        let bad = [("TIDEGATE_SERVER__HTPP", "x"), ("TIDEGATE_SERVER__HTTP", "x"), ("TIDEGATE_SERVR__HTTP", "x")];
        for (name, value) in bad {
            let error = load(None, variables(&[(name, value)]), &Overrides::default()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn variable_may_hold_a_table() {
        let variable = variables(&[("TIDEGATE_MONITOR__BASELINE", r#"{ learn = "2h" }"#)]);
        let config = load(None, variable, &Overrides::default()).unwrap();
        let two_hours = crate::config::Span(std::time::Duration::from_hours(2));
        assert_eq!(config.monitor.baseline, crate::config::Baseline::Learn(two_hours));
    }

    #[test]
    fn variable_may_hold_a_list() {
        let steps = |text: &str| {
            load(None, variables(&[("TIDEGATE_ROLLOUT__STEPS", text)]), &Overrides::default())
                .map(|config| config.rollout.steps)
        };
        assert_eq!(steps("[10, 100]").unwrap(), [10.0, 100.0]);
        assert!(steps("[10, 1]").unwrap_err().to_string().contains("rollout.steps"));
        assert!(steps("[10").unwrap_err().to_string().contains("TIDEGATE_ROLLOUT__STEPS"));
        // An address of IPv6 begins alike, and is no list.
        assert_eq!(scalar("[::1]:80"), toml::Value::from("[::1]:80"));
    }

    #[test]
    fn opentelemetry_variables_are_known_and_ours_win() {
        let theirs = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        let endpoint = |pairs: &[(&str, &str)]| {
            load(None, variables(pairs), &Overrides::default()).unwrap().telemetry.otlp_endpoint
        };
        assert_eq!(endpoint(&[theirs]), "http://collector:4317");
        assert_eq!(endpoint(&[("TIDEGATE_TELEMETRY__OTLP_ENDPOINT", "http://own:4317"), theirs]), "http://own:4317");
    }

    #[test]
    fn variables_of_the_client_are_not_configuration() {
        let client = variables(&[("TIDEGATE_TOKEN", "x"), ("TIDEGATE_ADMIN_URL", "y")]);
        assert_eq!(load(None, client, &Overrides::default()).unwrap(), Config::default());
    }

    #[test]
    fn all_senseless_values_are_told_at_once() {
        let file = file("[monitor]\nwarning = 0.5\ndrift = 0.1\n[repository]\nload_threads = 0\n");
        let error = load(Some(file.path()), [], &Overrides::default()).unwrap_err().to_string();
        assert!(
            error.contains("line 3: monitor.drift (0.1)") && error.contains("line 5: repository.load_threads"),
            "{error}"
        );
    }

    #[test]
    fn windows_that_are_one_under_two_names_are_refused() {
        let fault = |windows: &str| {
            let file = file(&format!("[monitor]\nwindows = {windows}\n"));
            load(Some(file.path()), [], &Overrides::default()).unwrap_err().to_string()
        };
        assert!(fault(r#"["1m", "5m", "60s"]"#).contains("line 2: monitor.windows has 1m twice"));
        assert!(fault(r#"["5m", "5m"]"#).contains("monitor.windows has 5m twice"));
    }

    /// The documented example shows every key with its default.
    #[test]
    fn example_file_states_the_defaults_of_every_key() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/tidegate.toml");
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(load(Some(Path::new(path)), [], &Overrides::default()).unwrap(), Config::default());
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in &defaults {
            assert!(text.contains(&format!("[{section}]")), "{section}");
            for key in keys.as_table().unwrap().keys() {
                assert!(text.lines().any(|line| line.starts_with(&format!("{key} = "))), "{section}.{key}");
            }
        }
    }

    #[test]
    fn values_that_make_no_sense_are_told_beside_keys_that_are_unknown() {
        let file = file(
            "[monitor]\nwarning = 0.5\ndrift = 0.1\ndrif = 1\n[server]\nmax_inflight_size = \"x\"\n\
                         max_request_size = \"2GiB\"\n",
        );
        let faults = faults_of_file(file.path());
        assert_eq!(faults.len(), 3, "{faults:?}");
        for (fault, words) in faults.iter().zip(["line 3: monitor.drift (0.1)", "line 4: monitor.drif:", "line 6:"]) {
            assert!(fault.starts_with(words), "{faults:?}");
        }
    }

    #[test]
    fn units_are_read() {
        let file = file("[server]\nmax_request_size = \"1MiB\"\ndrain_timeout = \"2m\"\n");
        let server = load(Some(file.path()), [], &Overrides::default()).unwrap().server;
        assert_eq!(server.max_request_size, ByteSize(1 << 20));
        assert_eq!(server.drain_timeout, Span(std::time::Duration::from_secs(120)));
    }
}
