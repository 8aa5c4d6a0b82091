//! One freedom of protobuf's text form that the parser does not know: `input [ … ]`, a list
//! without a colon before it. Triton's own examples are written so.

/// The text with a colon between every name and a list that follows it. No line moves.
pub(super) fn with_colons(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 64);
    // True after a name or number, across blanks and comments.
    let mut after_word = false;
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '#' => {
                out.push(next);
                copy_until(&mut rest, &mut out, '\n', false);
                continue;
            }
            '"' | '\'' => {
                out.push(next);
                copy_until(&mut rest, &mut out, next, true);
                after_word = false;
                continue;
            }
            '[' if after_word => {
                out.push(':');
                after_word = false;
            }
            blank if blank.is_ascii_whitespace() => {}
            other => after_word = other.is_ascii_alphanumeric() || other == '_',
        }
        out.push(next);
    }
    out
}

fn copy_until(rest: &mut std::str::Chars<'_>, out: &mut String, end: char, has_escapes: bool) {
    while let Some(next) = rest.next() {
        out.push(next);
        if has_escapes && next == '\\' {
            out.extend(rest.next());
        } else if next == end {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_after_a_name_gets_its_colon_and_nothing_else_changes() {
        let cases = [
            ("input [", "input :["),
            ("input\n # not [ here\n[{", "input\n # not [ here\n:[{"),
            ("dims: [ 1 ]", "dims: [ 1 ]"),
            ("name: \"x [ \\\" [\" dims [1]", "name: \"x [ \\\" [\" dims :[1]"),
            ("a: 'it [' [", "a: 'it [' ["),
            ("\"open", "\"open"),
        ];
        for (text, expected) in cases {
            assert_eq!(with_colons(text), expected);
        }
    }
}
