//! Why ONNX Runtime does not load a model, in words that say what to do.
//!
//! Its own words name source files, functions of C++ and paths of the machine that built it. What is common is said anew here;
//! of all else only the plain part is kept. The words as they were go to the log at debug level.

/// What is wrong, and what its author can do.
pub(super) fn of_load(message: &str) -> String {
    tracing::debug!(target: "onnxruntime", "{}", message.trim());
    let known = [ir_version, opset, unknown_operator, missing_import, no_kernel, wrong_type, locale, external, cut];
    let said = message.trim();
    known.iter().find_map(|translate| translate(said)).unwrap_or_else(|| plain(&in_node(said)))
}

/// The IR version that a refusal in these words tells to take.
pub(super) fn ir_version_to_take(words: &str) -> Option<i64> {
    between(words, "`ir_version=", |char| !char.is_ascii_digit())?.parse().ok()
}

/// The largest IR version that the runtime says it takes, where that is what it refused.
fn largest_ir_version(message: &str) -> Option<i64> {
    between(message, "max supported IR version: ", |char| !char.is_ascii_digit())?.parse().ok()
}

fn between<'a>(text: &'a str, start: &str, is_end: impl Fn(char) -> bool) -> Option<&'a str> {
    let rest = text.split_once(start)?.1;
    let end = rest.find(is_end).unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

/// `Unsupported model IR version: 14, max supported IR version: 13`
fn ir_version(said: &str) -> Option<String> {
    let found = between(said, "Unsupported model IR version: ", |char| !char.is_ascii_digit())?;
    let most = largest_ir_version(said)?;
    Some(format!(
        "it has IR version {found}, and this ONNX Runtime takes {most} at most: write it with `ir_version={most}` \
         (onnx.helper.make_model takes it; `model.ir_version = {most}` before saving does too)"
    ))
}

/// `Opset 28 is under development … Current official support for domain ai.onnx is till opset 26.`
fn opset(said: &str) -> Option<String> {
    let found = between(said, "Opset ", |char| !char.is_ascii_digit())?;
    let domain = between(said, "support for domain ", char::is_whitespace)?;
    let most = between(said, "is till opset ", |char| !char.is_ascii_digit())?;
    Some(format!(
        "it is written for opset {found} of {domain}, and this ONNX Runtime takes {most} at most: export it with \
         `target_opset={most}` (torch: `opset_version={most}`)"
    ))
}

/// `com.microsoft:Solve(-1) is not a registered function/op`, or `No Op registered for Foo with domain_version of 17`.
fn unknown_operator(said: &str) -> Option<String> {
    if let Some((before, _)) = said.split_once(" is not a registered function/op") {
        let named = before.rsplit(char::is_whitespace).next()?;
        let (domain, operator) = named.rsplit_once('(').map_or(named, |(named, _)| named).rsplit_once(':')?;
        return Some(of_domain(domain, operator));
    }
    let operator = between(said, "No Op registered for ", char::is_whitespace)?;
    let version = between(said, "domain_version of ", |char: char| !char.is_ascii_digit())?;
    Some(format!(
        "its operator {operator} is not in opset {version}: export it with another opset, or with what ONNX knows by another name"
    ))
}

/// An operator that the runtime does not have.
fn of_domain(domain: &str, operator: &str) -> String {
    match domain {
        "" | "ai.onnx" | "ai.onnx.ml" | "com.microsoft" | "ai.onnx.training" | "ai.onnx.preview.training" => format!(
            "it needs the operator {operator} of {}, which ONNX Runtime does not have: export it in another way, or with \
             another estimator or layer in its place",
            if domain.is_empty() { "ai.onnx" } else { domain }
        ),
        "ai.onnx.contrib" | "com.microsoft.extensions" => format!(
            "it needs the custom operator {operator} ({domain}) of the library onnxruntime-extensions. Custom operators cannot be \
             given to this gateway yet: leave the pre- and post-processing out of the model"
        ),
        _ => format!(
            "it needs the custom operator {operator} of the domain '{domain}', which a library of that domain brings. Custom \
             operators cannot be given to this gateway yet: export it without"
        ),
    }
}

/// `No opset import for domain 'zz'`
fn missing_import(said: &str) -> Option<String> {
    let domain = between(said, "No opset import for domain '", |char| char == '\'')?;
    let operator = node_operator(said).unwrap_or("an operator");
    Some(format!(
        "it uses {operator} of the domain '{domain}' and imports no opset of it: add it to opset_import, if ONNX Runtime has it"
    ))
}

/// `Could not find an implementation for Mod(13) node with name 'x'`
fn no_kernel(said: &str) -> Option<String> {
    let named = between(said, "Could not find an implementation for ", char::is_whitespace)?;
    let (operator, version) = named.trim_end_matches(')').split_once('(')?;
    Some(format!(
        "ONNX Runtime cannot run its operator {operator} (opset {version}) with these element types on a CPU: mostly float16 or \
         bfloat16, which is for GPUs: export it in float32"
    ))
}

/// `Type 'tensor(bfloat16)' of input parameter (x) of operator (Conv) in node () is invalid.`
fn wrong_type(said: &str) -> Option<String> {
    let kind = between(said, "Type Error: Type 'tensor(", |char| char == ')')?;
    let tensor = between(said, " parameter (", |char| char == ')')?;
    let operator = between(said, "of operator (", |char| char == ')')?;
    Some(format!("its operator {operator} does not take {kind}, which '{tensor}' is: export it in float32"))
}

/// `Failed to construct locale with name:tr_TR.UTF-8:…`
fn locale(said: &str) -> Option<String> {
    let name = between(said, "Failed to construct locale with name:", |char| char == ':' || char.is_whitespace())?;
    Some(format!(
        "it changes the case of text by the rules of the locale {name}, which this machine does not have: install it (Debian: \
         the package locales, then locale-gen), or export with the locale C.UTF-8"
    ))
}

/// `External data path does not exist: "/…/w.bin"`
fn external(said: &str) -> Option<String> {
    let path = between(said, "External data path does not exist: \"", |char| char == '"')?;
    let name = path.rsplit('/').next()?;
    Some(format!("its weights in {name} are missing: copy that file beside it"))
}

fn cut(said: &str) -> Option<String> {
    let is_broken = said.contains("protobuf parsing failed") || said.contains("No graph was found in the protobuf");
    is_broken.then(|| "it is no ONNX model, or one that was cut short: copy it again".to_owned())
}

/// The operator of `In Node, ("name", Operator, "domain", -1) : …`
fn node_operator(said: &str) -> Option<&str> {
    let place = said.split_once("In Node, (\"")?.1;
    between(place.split_once("\", ")?.1, "", |char| char == ',')
}

/// Without the types of all inputs and outputs of the node.
fn in_node(said: &str) -> String {
    let (Some(operator), Some((_, wrong))) = (node_operator(said), said.split_once(", Error ")) else {
        return said.to_owned();
    };
    match wrong.strip_prefix("Node with schema(").and_then(|schema| schema.split_once(") ")) {
        Some((_, wrong)) => format!("its operator {operator} {wrong}"),
        None => format!("its operator {operator}: {wrong}"),
    }
}

/// Whether a line of ONNX Runtime's log says what the failed load or run says too.
pub(super) fn is_told_elsewhere(message: &str) -> bool {
    ["Non-zero status code returned while running", "Exception during initialization", "Failed to load model"]
        .iter()
        .any(|known| message.contains(known))
}

/// ONNX Runtime's words without source files, functions and paths.
pub(super) fn plain(said: &str) -> String {
    // A name that other rooms look for.
    let said = said.replace("std::bad_alloc", "bad_alloc");
    let said = said.replace("Exception during initialization: ", "");
    let mut rest = said.trim();
    // What stands after the last place in the source is what happened there.
    if let Some(place) = rest.split_whitespace().rfind(|word| is_place(word)) {
        let at = rest.rfind(place).unwrap_or_default();
        let (before, behind) = (rest[..at].trim(), rest[at + place.len()..].trim());
        let behind = without_function(behind);
        let behind = behind.split_once(" was false.").map_or(behind, |(_, wrong)| wrong).trim();
        rest = if behind.is_empty() { before } else { behind };
    }
    let words: Vec<&str> = rest.split_whitespace().filter(|word| !is_internal(word)).collect();
    if words.is_empty() {
        "ONNX Runtime refuses it without a reason that could be told".into()
    } else {
        words.join(" ")
    }
}

/// A source file and a line in it, such as `/src/core/model.cc:256`.
fn is_place(word: &str) -> bool {
    let Some((file, line)) = word.trim_end_matches([':', ',']).rsplit_once(':') else { return false };
    !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()) && is_source(file)
}

fn is_source(file: &str) -> bool {
    let kind = file.rsplit_once('.').map(|(_, kind)| kind);
    kind.is_some_and(|kind| matches!(kind, "h" | "hpp" | "cc" | "cpp" | "cxx" | "cu" | "cuh"))
}

/// Without `void onnxruntime::model::Check(const std::string&, int) const [with T = float]` at the beginning.
fn without_function(said: &str) -> &str {
    let Some(open) = said.find('(').filter(|open| said[..*open].contains("::")) else { return said };
    let mut depth = 0_usize;
    for (at, byte) in said.bytes().enumerate().skip(open) {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            let mut rest = said[at + 1..].trim_start();
            // `::<lambda()>` and the like belong to the name.
            if rest.starts_with("::") {
                rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
            }
            let rest = rest.strip_prefix("const ").unwrap_or(rest);
            let behind = rest.strip_prefix("[with ").and_then(|types| types.split_once(']'));
            return behind.map_or(rest, |(_, behind)| behind);
        }
    }
    ""
}

fn is_internal(word: &str) -> bool {
    let bare = word.trim_matches(|char: char| !char.is_alphanumeric() && char != '/');
    let is_path = bare.starts_with('/') && bare[1..].contains('/');
    word.contains("::") || is_path || is_place(word) || is_source(bare)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn common_refusals_say_what_to_do() {
        let model = "/onnxruntime_src/onnxruntime/core/graph/model.cc:256 onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&, const onnxruntime::logging::Logger&)";
        let helper = "/onnxruntime_src/onnxruntime/core/graph/model_load_utils.h:46 void onnxruntime::model_load_utils::ValidateOpsetForDomain(const std::unordered_map<std::__cxx11::basic_string<char>, int>&, bool)";
        let normalizer = "/onnxruntime_src/onnxruntime/core/providers/cpu/text/string_normalizer.cc:235 onnxruntime::StringNormalizer::Locale::Locale(const std::string&)::<lambda()>";
        for (said, words) in [
            (
                format!("{model} Unsupported model IR version: 14, max supported IR version: 13\n"),
                &["IR version 14", "takes 13 at most", "ir_version=13"][..],
            ),
            (
                format!("{helper} ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 28 is under development and support for this is limited. Current official support for domain ai.onnx is till opset 26."),
                &["opset 28 of ai.onnx", "takes 26 at most", "target_opset=26"],
            ),
            (
                "Fatal error: com.microsoft:Solve(-1) is not a registered function/op".into(),
                &["operator Solve of com.microsoft, which ONNX Runtime does not have"],
            ),
            (
                "Fatal error: my.ops:Foo(-1) is not a registered function/op".into(),
                &["custom operator Foo of the domain 'my.ops'", "cannot be given to this gateway yet"],
            ),
            (
                "Fatal error: ai.onnx.contrib:BertTokenizer(-1) is not a registered function/op".into(),
                &["BertTokenizer", "onnxruntime-extensions", "yet"],
            ),
            (
                "This is an invalid model. In Node, (\"\", Foo, \"\", -1) : (\"x\": tensor(float),) -> (\"y\": tensor(float),) , Error No Op registered for Foo with domain_version of 17".into(),
                &["operator Foo is not in opset 17"],
            ),
            (
                "This is an invalid model. In Node, (\"\", Foo, \"zz\", -1) : (\"x\": tensor(float),) -> (\"y\": tensor(float),) , Error No opset import for domain 'zz'".into(),
                &["it uses Foo of the domain 'zz'", "opset_import"],
            ),
            (
                "Could not find an implementation for Mod(13) node with name ''".into(),
                &["operator Mod (opset 13)", "float16", "export it in float32"],
            ),
            (
                "This is an invalid model. Type Error: Type 'tensor(bfloat16)' of input parameter (x) of operator (Conv) in node () is invalid.".into(),
                &["operator Conv does not take bfloat16, which 'x' is"],
            ),
            (
                format!("Exception during initialization: {normalizer} Failed to construct locale with name:tr_TR.UTF-8:locale::facet::_S_create_c_locale name not valid:Please, install"),
                &["the locale tr_TR.UTF-8, which this machine does not have", "C.UTF-8"],
            ),
            (
                "External data path validation failed for initializer: w. Error: tensorprotoutils.cc:461 ValidateExternalDataPathFromDir External data path does not exist: \"/tmp/secret/gone.bin\"".into(),
                &["its weights in gone.bin are missing"],
            ),
            ("Failed to load model because protobuf parsing failed.".into(), &["cut short"]),
            (
                "This is an invalid model. In Node, (\"\", Gemm, \"\", -1) : (\"x\": tensor(float),) -> (\"y\": tensor(float),) , Error Node with schema(::Gemm:13) has input size 1 not in range [min=2, max=3].".into(),
                &["its operator Gemm has input size 1 not in range [min=2, max=3]."],
            ),
            (
                format!("Exception during initialization: {model} ort_value_name_idx_map.MaxIdx() > -1 was false. OrtValue indexes should have been populated."),
                &["OrtValue indexes should have been populated."],
            ),
            ("Failed to allocate memory: std::bad_alloc".into(), &["Failed to allocate memory: bad_alloc"]),
            ("/src/a.cc:3".into(), &["without a reason"]),
        ] {
            let told = of_load(&said);
            for word in words {
                assert!(told.contains(word), "{word}: {told}");
            }
            assert_eq!(ir_version_to_take(&told), told.contains("IR version").then_some(13));
            assert!(!told.contains("onnxruntime_src") && !told.contains("::") && !told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn words_without_source_are_kept_as_they_are() {
        for said in [
            "Type Error: Type (tensor(int64)) of output arg (y) of node () does not match expected type (tensor(float)).",
            "Node () Op (MatMul) [ShapeInferenceError] Incompatible dimensions for matrix multiplication",
            "Invalid model. Node input 'zz' is not a graph input, initializer, or output of a previous node.",
        ] {
            assert_eq!(of_load(said), said);
        }
    }

    proptest! {
        #[test]
        fn no_words_panic_or_tell_of_the_source(said in r"[a-z/:.()<>&*=' 0-9hé]{0,80}") {
            let told = plain(&said);
            prop_assert!(!told.contains("::") && !told.split_whitespace().any(is_place), "{said:?} {told:?}");
            let _ = of_load(&said);
        }
    }
}
