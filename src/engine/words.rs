//! What ONNX Runtime says, without what is its own business: source files, functions, names of nodes.
//!
//! A client is told what is wrong with its values. Where the text was built, and in which function of C++ the check stands, helps
//! nobody who sent a request, and tells strangers about the server. All that a client gets of a failed run passes here.

/// What a failed run said of the values or shapes that it got: `None` when that was no operator.
///
/// `Non-zero status code returned while running Add node. Name:'x' Status Message: …`.
pub(super) fn of_operator(message: &str) -> Option<String> {
    let (operator, rest) = message.split_once("while running ")?.1.split_once(" node.")?;
    let said = rest.split_once("Status Message: ").map_or("", |(_, said)| said);
    Some(match plain(said) {
        Some(said) => format!("the operator {operator} says: {said}"),
        None => format!("the operator {operator} cannot work on them"),
    })
}

/// The first line of `said` in plain words; `None` when nothing is left that could be told.
pub(super) fn plain(said: &str) -> Option<String> {
    let said = said.lines().next().unwrap_or_default();
    // Checks in the runtime's own source say where they stand and what did not hold, and after that what is wrong.
    let said = said.split_once(" was false.").map_or(said, |(_, wrong)| wrong).trim_start();
    let said = without_function(without_place(said)).trim();
    let is_plain = !said.is_empty() && !said.split_whitespace().any(is_internal);
    is_plain.then(|| said.to_owned())
}

/// Without `/build/core/concatbase.h:133 ` at the beginning.
fn without_place(said: &str) -> &str {
    match said.split_once(' ') {
        Some((place, rest)) if is_place(place) => rest.trim_start(),
        _ if is_place(said) => "",
        _ => said,
    }
}

/// A source file and a line in it.
fn is_place(word: &str) -> bool {
    let Some((file, line)) = word.trim_end_matches([':', ',']).rsplit_once(':') else { return false };
    !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()) && is_source(file)
}

fn is_source(file: &str) -> bool {
    file.rsplit_once('.')
        .is_some_and(|(_, kind)| matches!(kind, "h" | "hpp" | "cc" | "cpp" | "cxx" | "c" | "cu" | "cuh"))
}

/// Without `onnxruntime::common::Status onnxruntime::Concat::Prepare(int, bool) const ` at the beginning.
fn without_function(said: &str) -> &str {
    let Some(open) = said.find('(') else { return said };
    if !said[..open].contains("::") {
        return said;
    }
    let mut depth = 0_usize;
    for (at, byte) in said.bytes().enumerate().skip(open) {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            let rest = said[at + 1..].trim_start();
            let rest =
                rest.strip_prefix("const").filter(|rest| !rest.starts_with(char::is_alphanumeric)).unwrap_or(rest);
            let rest = rest.trim_start();
            // `[with T = float]`, where it was compiled for a type.
            let behind = rest.strip_prefix("[with ").and_then(|types| types.split_once(']')).map(|(_, behind)| behind);
            return behind.unwrap_or(rest);
        }
    }
    ""
}

/// What no client's request has a word for.
fn is_internal(word: &str) -> bool {
    let is_scoped = word.contains("::");
    let word = word.trim_matches(|char: char| !char.is_alphanumeric() && char != '/');
    let is_path = word.starts_with('/') && word[1..].contains('/');
    is_scoped || is_path || is_place(word) || is_source(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_of_an_operator_lose_what_is_internal() {
        let wrap = |said: &str| {
            format!("Non-zero status code returned while running Add node. Name:'secret_node' Status Message: {said}")
        };
        let says = |words: &str| format!("the operator Add says: {words}");
        let nothing = "the operator Add cannot work on them".to_owned();
        for (said, expected) in [
            ("indices element out of data bounds, idx=100", says("indices element out of data bounds, idx=100")),
            (
                "/onnxruntime_src/core/x.h:560 void onnxruntime::Append(ptrdiff_t) axis == 1 was false. Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
                says("Attempting to broadcast an axis by a dimension other than 1. 2 by 3"),
            ),
            (
                "concatbase.h:133 onnxruntime::common::Status onnxruntime::ConcatBase::PrepareForComputeImpl(onnxruntime::OpKernelContext*, const std::vector<int>&, Prepare&) const Non concat axis dimensions must match: Axis 0 has mismatched dimensions of 3 and 2",
                says("Non concat axis dimensions must match: Axis 0 has mismatched dimensions of 3 and 2"),
            ),
            (
                "/build/reshape_helper.h:39 onnxruntime::ReshapeHelper::ReshapeHelper(const TensorShape&, TensorShapeVector&, bool) input_shape_size == size was false. The input tensor cannot be reshaped to the requested shape. Input shape:{3}, requested shape:{2}",
                says(
                    "The input tensor cannot be reshaped to the requested shape. Input shape:{3}, requested shape:{2}",
                ),
            ),
            (
                "scatter.cc:20 Status onnxruntime::Copy(const Tensor*) [with T = float] Indices vs updates dimensions differs at position=0 3 vs 2",
                says("Indices vs updates dimensions differs at position=0 3 vs 2"),
            ),
            ("gather.cc:12", nothing.clone()),
            ("/onnxruntime_src/core/x.cc:12", nothing.clone()),
            ("see onnxruntime::Secret for more", nothing.clone()),
            ("failed in /build/core/x.cc", nothing.clone()),
            ("", nothing.clone()),
            ("a::b((c", nothing),
            ("the ratio 3/4 is too large (1:2)", says("the ratio 3/4 is too large (1:2)")),
        ] {
            assert_eq!(of_operator(&wrap(said)).unwrap(), expected, "{said}");
        }
        assert_eq!(of_operator("Exception during initialization"), None);
    }

    #[test]
    fn words_that_are_no_operators_are_told_where_they_are_plain() {
        let words = "Got invalid dimensions for input: x for the following indices index: 1 Got: 3 Expected: 2";
        assert_eq!(
            plain(&format!("{words} Please fix either the inputs/outputs or the model.")).unwrap().find(words),
            Some(0)
        );
        assert_eq!(plain("/build/session.cc:88 bool onnxruntime::Check(int) x was false."), None);
    }

    proptest! {
        #[test]
        fn no_words_panic_or_tell_of_the_source(said in r"[a-z/:.()<>&*=' 0-9h]{0,60}") {
            let told = plain(&said).unwrap_or_default();
            prop_assert!(!told.contains("::") && !told.split_whitespace().any(is_place), "{said:?} {told:?}");
        }
    }
}
