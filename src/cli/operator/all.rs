//! The commands that show one model, over all models of the gateway.

use super::{Answer, DriftArgs, HistoryArgs, StatusArgs, broken, drift, history_call, line, read, show};
use crate::{
    admin::wire::{DriftReport, History, ModelList},
    cli::{
        Output,
        client::{Call, Client, ClientError},
        output::{Look, warn},
        view,
    },
    domain::ModelName,
};

const MODELS: &str = "/admin/v1/models";

pub(super) fn status(args: &StatusArgs, look: Look) -> Result<Answer, ClientError> {
    show(&args.gateway, &Call::get(MODELS), |list: &ModelList| {
        list.warnings
            .iter()
            .chain(list.models.iter().flat_map(|model| &model.warnings))
            .for_each(|warning| warn(warning));
        let shown: Vec<_> = list.models.iter().map(|model| view::status(model, args.verbose, look)).collect();
        shown.join("\n")
    })
}

/// The newest entries of all models; as JSON, the history of each.
pub(super) fn history(args: &HistoryArgs, look: Look) -> Result<Answer, ClientError> {
    let client = Client::new(&args.gateway);
    let mut histories: Vec<History> = Vec::new();
    for model in names(&client)? {
        histories.push(read(&client.call(&history_call(args, &model))?)?);
    }
    // It is of the whole log, whichever model it was asked of.
    let failure = broken(histories.iter().find_map(|history| history.verification.as_ref()));
    let text = match args.gateway.output {
        Output::Json => line(serde_json::json!({ "histories": histories }).to_string()),
        Output::Table => view::histories(&histories, usize::try_from(args.limit).unwrap_or(usize::MAX), look),
    };
    Ok(Answer::failed(text, failure))
}

/// A line for each model.
pub(super) fn drift(args: &DriftArgs, look: Look) -> Result<Answer, ClientError> {
    let client = Client::new(&args.gateway);
    let (mut reports, mut unwatched) = (Vec::<DriftReport>::new(), Vec::new());
    for model in names(&client)? {
        match client.call(&drift::call(args, &model)) {
            Ok(text) => reports.push(read(&text)?),
            // No stable version, or none with a profile: the others are shown all the same.
            Err(ClientError::Refused(why)) => unwatched.push((model.to_string(), why)),
            Err(error) => return Err(error),
        }
    }
    let code = if args.exit_code {
        let none = (!unwatched.is_empty()).then_some(drift::NO_VERDICT);
        reports.iter().map(|report| drift::exit_code(&report.state)).chain(none).max_by_key(|code| drift::rank(*code))
    } else {
        None
    };
    let text = match args.gateway.output {
        Output::Json => {
            let unwatched: Vec<_> =
                unwatched.iter().map(|(model, error)| serde_json::json!({ "model": model, "error": error })).collect();
            line(serde_json::json!({ "reports": reports, "unwatched": unwatched }).to_string())
        }
        Output::Table => view::drift_of_all(&reports, &unwatched, look),
    };
    Ok(Answer { code: code.unwrap_or(0), ..text.into() })
}

fn names(client: &Client) -> Result<Vec<ModelName>, ClientError> {
    let list: ModelList = read(&client.call(&Call::get(MODELS))?)?;
    Ok(list.models.into_iter().filter_map(|model| model.model.parse().ok()).collect())
}
