//! What looks like configuration and is none: variables with one underscore too few, a file that nobody named.

use std::path::Path;

use super::Config;

/// Variables of the program that are no settings.
const OTHERS: [&str; 5] =
    ["TIDEGATE_CONFIG", "TIDEGATE_ADMIN_URL", "TIDEGATE_TOKEN", "TIDEGATE_COMPLETE", "TIDEGATE_BINARY"];

/// The file that people expect to be read.
pub const USUAL_FILE: &str = "tidegate.toml";

/// A line for each variable that begins as ours do and sets nothing, with the name that was perhaps meant.
pub fn ignored_variables<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let names: Vec<_> = names.into_iter().collect();
    let mut ignored: Vec<_> = names
        .iter()
        .copied()
        .filter(|name| !OTHERS.contains(name) && !is_of_kubernetes(name, &names))
        .filter_map(|name| Some((name, name.strip_prefix("TIDEGATE_")?)))
        .filter(|(_, rest)| !rest.contains("__"))
        .map(|(name, rest)| {
            let meant = meant(rest).map_or_else(
                || "settings are named TIDEGATE_SECTION__KEY".to_owned(),
                |meant| format!("did you mean {meant}, with two underscores after the section?"),
            );
            format!("the environment variable {name} is ignored: {meant}")
        })
        .collect();
    ignored.sort();
    ignored
}

/// Kubernetes sets `TIDEGATE_SERVICE_HOST`, `TIDEGATE_PORT` and more in each container beside a service `tidegate`.
fn is_of_kubernetes(name: &str, all: &[&str]) -> bool {
    all.iter().filter_map(|other| other.strip_suffix("_SERVICE_HOST")).any(|service| {
        name.strip_prefix(service).is_some_and(|rest| rest.starts_with("_SERVICE_") || rest.starts_with("_PORT"))
    })
}

/// `TIDEGATE_SERVER__HTTP` for `SERVER_HTTP`.
fn meant(rest: &str) -> Option<String> {
    let sections = toml::Table::try_from(Config::default()).ok()?;
    let upper = rest.to_ascii_uppercase();
    let section = sections.keys().map(|section| section.to_uppercase()).find(|section| {
        upper.strip_prefix(section.as_str()).is_some_and(|key| key.len() > 1 && key.starts_with('_'))
    })?;
    Some(format!("TIDEGATE_{section}__{}", &upper[section.len() + 1..]))
}

/// Says that a file in the working directory is not read, where one has the usual name and none was given.
#[must_use]
pub fn ignored_file(given: Option<&Path>, directory: &Path) -> Option<String> {
    (given.is_none() && directory.join(USUAL_FILE).is_file())
        .then(|| format!("./{USUAL_FILE} is not read: give --config {USUAL_FILE}, or set TIDEGATE_CONFIG={USUAL_FILE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_that_sets_nothing_is_told_with_what_was_meant() {
        let names = [
            "TIDEGATE_SERVER_HTTP",
            "TIDEGATE_SERVER__GRPC",
            "TIDEGATE_TOKEN",
            "TIDEGATE_PORT",
            "PATH",
            "TIDEGATE_CONFIG",
        ];
        assert_eq!(
            ignored_variables(names),
            [
                "the environment variable TIDEGATE_PORT is ignored: settings are named TIDEGATE_SECTION__KEY",
                "the environment variable TIDEGATE_SERVER_HTTP is ignored: did you mean TIDEGATE_SERVER__HTTP, with two \
                 underscores after the section?",
            ]
        );
        let told = ignored_variables(["TIDEGATE_MONITOR_SAVE_INTERVAL"]);
        assert!(told[0].contains("TIDEGATE_MONITOR__SAVE_INTERVAL"), "{told:?}");
    }

    #[test]
    fn variables_of_kubernetes_are_no_mistake() {
        let of_service =
            ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8000_TCP", "PORT_8000_TCP_ADDR"];
        for service in ["TIDEGATE", "TIDEGATE_METRICS"] {
            let names = of_service.map(|name| format!("{service}_{name}"));
            assert_eq!(ignored_variables(names.iter().map(String::as_str)), <[String; 0]>::default());
        }
    }

    #[test]
    fn usual_file_is_told_where_none_is_given() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(ignored_file(None, directory.path()), None);
        std::fs::write(directory.path().join(USUAL_FILE), "").unwrap();
        assert!(ignored_file(None, directory.path()).unwrap().contains("--config tidegate.toml"));
        assert_eq!(ignored_file(Some(Path::new("other.toml")), directory.path()), None);
    }
}
