//! What was perhaps meant where a model or a version is unknown.

use serde::de::DeserializeOwned;

use super::{
    client::{Call, Client},
    output::printable,
};
use crate::admin::wire::{ModelList, ModelStatus};

/// So many names are told; more are no help.
const MOST_NAMES: usize = 8;

/// What the gateway said of something that it does not have, with the names that it does have: the model most like what was
/// asked for, or the versions of the model. As it was where the gateway does not say.
pub(super) fn with_names(client: &Client, path: &str, error: String) -> String {
    let Some(rest) = path.strip_prefix("/admin/v1/models/") else { return error };
    let model = rest.split('/').next().unwrap_or_default();
    if error.contains("did you mean") {
        return error;
    }
    if error.starts_with("unknown model") {
        let known: Option<ModelList> = ask(client, "/admin/v1/models");
        let names = known.map(|list| list.models.into_iter().map(|model| model.model).collect::<Vec<_>>());
        return names.map_or(error.clone(), |names| format!("{error}{}", models(model, &names)));
    }
    if !error.contains("has no version ") {
        return error;
    }
    let Some(status): Option<ModelStatus> = ask(client, &format!("/admin/v1/models/{model}")) else { return error };
    let versions: Vec<_> = status.versions.iter().map(|version| version.version.to_string()).collect();
    if versions.is_empty() { error } else { format!("{error}: it has {}", list(&versions)) }
}

fn ask<T: DeserializeOwned>(client: &Client, path: &str) -> Option<T> {
    serde_json::from_str(&client.call(&Call::get(path)).ok()?).ok()
}

fn models(asked: &str, known: &[String]) -> String {
    let folded = |name: &str| name.to_ascii_lowercase().replace(['-', '.', ' '], "_");
    let near = known.iter().map(|name| (strsim::osa_distance(&folded(name), &folded(asked)), name)).min();
    match near {
        None => ": there are no models".to_owned(),
        // A third of the letters may be wrong.
        Some((distance, name)) if distance * 3 <= asked.len().max(3) => {
            format!(": did you mean '{}'?", printable(name))
        }
        Some(_) => format!(": there are {}", list(known)),
    }
}

fn list(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(MOST_NAMES).map(|name| printable(name)).collect();
    let more = if names.len() > MOST_NAMES { format!(" and {} more", names.len() - MOST_NAMES) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn name_that_is_much_alike_is_suggested_and_all_are_listed_otherwise() {
        let known = names(&["car_loan", "magika"]);
        assert_eq!(models("car_laon", &known), ": did you mean 'car_loan'?");
        assert_eq!(models("Car-Loan", &known), ": did you mean 'car_loan'?");
        assert_eq!(models("fraud", &known), ": there are car_loan, magika");
        assert_eq!(models("fraud", &[]), ": there are no models");
        let many: Vec<_> = (0..20).map(|number| format!("model_{number}")).collect();
        assert!(models("zzz", &many).ends_with("model_7 and 12 more"));
    }
}
