//! A place in JSON text that moves forward over it once: no value tree, no recursion, and no
//! memory but for strings with escapes and the nesting of what is skipped where it is deep.
//!
//! The grammar is that of JSON, and the words `NaN`, `Infinity` and `-Infinity` besides, where a value may stand: Python's
//! `json` writes them, and other servers of the protocol take them.

use std::{borrow::Cow, fmt};

use smallvec::SmallVec;

use super::{
    number::{self, Number, Short},
    words,
};
use crate::protocol::refusal::{Refusal, shown};

/// Why the text cannot go on as it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JsonFault {
    /// It is not JSON.
    Syntax { words: &'static str, at: usize },
    /// It is JSON, but not of the protocol.
    Form { words: String, at: usize },
}

impl JsonFault {
    /// The fault in words for the client, with its line and column in `text`.
    pub(super) fn refusal(&self, text: &str) -> Refusal {
        let place = |at: usize| {
            let before = &text.as_bytes()[..at.min(text.len())];
            let (count, last) =
                before.split(|&byte| byte == b'\n').fold((0, before), |(count, _), line| (count + 1, line));
            format!("at line {count} column {}", last.len() + 1)
        };
        Refusal::bad_request(match self {
            Self::Syntax { words, at } => format!("the request is not valid JSON: {words} {}", place(*at)),
            Self::Form { words, at } => format!("the request does not fit the protocol: {words} {}", place(*at)),
        })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The same text at an earlier place.
    pub(super) fn back_to(self, at: usize) -> Self {
        Self { at, ..self }
    }

    /// The text from here to the end.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.text.len() - self.at
    }

    /// The text from `start` to here.
    pub(super) fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    /// The next byte, without moving.
    #[inline]
    pub(super) fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The first byte that is no blank; moves there.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Moves over a byte that [`Self::peek`] or [`Self::byte`] has shown.
    #[inline]
    pub(super) fn bump(&mut self) {
        self.at += 1;
    }

    /// Moves over `byte` when it comes next.
    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    #[cold]
    pub(super) fn syntax(&self, words: &'static str) -> JsonFault {
        let words = if self.at < self.text.len() { words } else { "EOF while parsing a value" };
        JsonFault::Syntax { words, at: self.at }
    }

    /// The next value is not what the protocol has there.
    #[cold]
    pub(super) fn unexpected(&mut self, expected: impl fmt::Display) -> JsonFault {
        let kind = match self.peek() {
            Some(b'{') => "map",
            Some(b'[') => "sequence",
            Some(b'"') => "string",
            Some(b't' | b'f') => "boolean",
            Some(b'n') => "null",
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => "integer",
            _ => return self.syntax("expected value"),
        };
        let at = self.at;
        if let Err(fault) = self.skip() {
            return fault;
        }
        let text = self.since(at);
        let words = match kind {
            "integer" if text.contains(['.', 'e', 'E', 'N', 'I']) => format!("floating point `{}`", shown(text)),
            "integer" | "boolean" => format!("{kind} `{}`", shown(text)),
            "string" => format!("string {}", shown(text)),
            _ => kind.to_owned(),
        };
        JsonFault::Form { words: format!("invalid type: {words}, expected {expected}"), at }
    }

    /// Nothing but blanks may follow.
    pub(super) fn end(&mut self) -> Result<(), JsonFault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(JsonFault::Syntax { words: "trailing characters", at: self.at }),
        }
    }

    /// Goes over an object; `member` is called behind each key, and must move over its value.
    /// The place of the closing brace.
    pub(super) fn object<E: From<JsonFault>>(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<usize, E> {
        if !self.take(b'{') {
            return Err(self.unexpected("a JSON object").into());
        }
        if self.take(b'}') {
            return Ok(self.at - 1);
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.syntax("key must be a string").into());
            }
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.syntax("expected `:`").into());
            }
            member(self, &key)?;
            if self.take(b'}') {
                return Ok(self.at - 1);
            }
            if !self.take(b',') {
                return Err(self.syntax("expected `,` or `}`").into());
            }
        }
    }

    /// Goes over a list; `item` must move over each of its items.
    pub(super) fn list<E: From<JsonFault>>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.take(b'[') {
            return Err(self.unexpected("a sequence").into());
        }
        if self.take(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return Err(self.syntax("expected `,` or `]`").into());
            }
        }
    }

    /// Moves over `null` when it comes next.
    pub(super) fn null(&mut self) -> Result<bool, JsonFault> {
        if self.peek() != Some(b'n') {
            return Ok(false);
        }
        self.skip_word().map(|()| true)
    }

    /// A string. Without escapes it is a slice of the text.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, JsonFault> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a string"));
        }
        let start = self.at;
        let quoted = self.quoted()?;
        if quoted.has_escapes {
            let lone = |_| JsonFault::Syntax { words: "lone surrogate in a string", at: start };
            serde_json::from_str(quoted.text).map(Cow::Owned).map_err(lone)
        } else {
            Ok(Cow::Borrowed(quoted.inner()))
        }
    }

    /// A string as it stands. The next byte must be its opening quote.
    pub(super) fn quoted(&mut self) -> Result<Quoted<'a>, JsonFault> {
        let start = self.at;
        self.at += 1;
        let mut has_escapes = false;
        loop {
            self.at += plain_length(&self.text.as_bytes()[self.at..]);
            match self.byte() {
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    self.at += 1;
                    self.escape()?;
                }
                Some(_) => return Err(self.syntax("control character in a string")),
                None => return Err(JsonFault::Syntax { words: "EOF while parsing a string", at: self.at }),
            }
        }
        self.at += 1;
        Ok(Quoted { text: self.since(start), has_escapes })
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Result<(), JsonFault> {
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
            Some(b'u') => {
                let digits = self.text.as_bytes().get(self.at + 1..self.at + 5);
                if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                    return Err(self.syntax("invalid escape"));
                }
                self.at += 5;
            }
            _ => return Err(self.syntax("invalid escape")),
        }
        Ok(())
    }

    /// What `read` makes of numbers of the usual form that follow each other from here on, some of them at least. True
    /// when this stands before another number or word, false when it stands behind the last.
    #[inline]
    pub(super) fn short_numbers<T: Copy + Default>(
        &mut self,
        values: &mut Vec<T>,
        read: impl Fn(Short) -> Option<T>,
    ) -> bool {
        // In memory of this function alone: the place and the values stay in registers, or near.
        let (bytes, mut at) = (self.text.as_bytes(), self.at);
        let mut some = [T::default(); 64];
        let (mut filled, mut gap) = (0, 1);
        let stands_before_another = loop {
            let Some((length, value)) = Short::read(bytes, at).and_then(|short| Some((short.length, read(short)?)))
            else {
                break true;
            };
            some[filled] = value;
            filled += 1;
            at += length;
            let Some(next) = scalar_behind_comma(bytes, at, &mut gap) else { break false };
            at = next;
            if filled == some.len() {
                break true;
            }
        };
        self.at = at;
        values.extend_from_slice(&some[..filled]);
        stands_before_another
    }

    /// As [`Self::short_numbers`], after what `many` reads, which takes the text, a place in it and the values: the place
    /// behind the last number that it appended to them.
    #[inline]
    pub(super) fn numbers<T: Copy + Default>(
        &mut self,
        values: &mut Vec<T>,
        many: impl FnOnce(&[u8], usize, &mut Vec<T>) -> usize,
        read: impl Fn(Short) -> Option<T>,
    ) -> bool {
        let end = many(self.text.as_bytes(), self.at, values);
        if end > self.at {
            self.at = end;
            if !self.next_scalar() {
                return false;
            }
        }
        self.short_numbers(values, read)
    }

    /// A number of digits, or `None` when the next value is none.
    #[inline]
    pub(super) fn number(&mut self) -> Result<Option<Number<'a>>, JsonFault> {
        match self.byte() {
            Some(b'-' | b'0'..=b'9') => {}
            _ => return Ok(None),
        }
        match number::read(self.text.as_bytes(), self.at) {
            Some(number) => {
                self.at += number.length();
                Ok(Some(number))
            }
            None if self.rest().starts_with("-Infinity") => Ok(None),
            None => Err(self.no_value("invalid number")),
        }
    }

    /// A word for a number that is not finite, or `None` when the next value is none. `null` is one: JSON has no other way to say
    /// that a number is missing.
    pub(super) fn nonfinite(&mut self) -> Option<f64> {
        let (word, value) = words::nonfinite(self.rest())?;
        self.at += word.len();
        Some(value)
    }

    /// Moves over the comma behind an item, and one blank, when a number or a word follows.
    #[inline]
    pub(super) fn next_scalar(&mut self) -> bool {
        let next = scalar_behind_comma(self.text.as_bytes(), self.at, &mut 1);
        self.at = next.unwrap_or(self.at);
        next.is_some()
    }

    /// A whole number, or `None` when the next value is none that fits. `2.0` is one: there are languages in which all
    /// numbers are floats.
    pub(super) fn whole<T: TryFrom<i64> + TryFrom<u64>>(&mut self) -> Option<T> {
        self.peek();
        let number = self.number().ok().flatten()?;
        number.to_integer().or_else(|| T::try_from(number.whole_float()?).ok())
    }

    /// `true` or `false`, or `None` when the next value is neither.
    pub(super) fn boolean(&mut self) -> Option<bool> {
        let start = self.at;
        self.skip().ok()?;
        match self.since(start) {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Moves over a value, whatever it is and however deep.
    pub(super) fn skip(&mut self) -> Result<(), JsonFault> {
        let mut open: SmallVec<[u8; 16]> = SmallVec::new();
        loop {
            match self.peek() {
                Some(bracket @ (b'[' | b'{')) => {
                    self.at += 1;
                    if !self.take(closing(bracket)) {
                        open.push(bracket);
                        if bracket == b'{' {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    self.quoted()?;
                }
                Some(b'-' | b'0'..=b'9') => {
                    if self.number()?.is_none() {
                        self.skip_word()?;
                    }
                }
                _ => self.skip_word()?,
            }
            // A value has ended, and with it perhaps what is around it.
            loop {
                let Some(&bracket) = open.last() else { return Ok(()) };
                if self.take(b',') {
                    if bracket == b'{' {
                        self.skip_key()?;
                    }
                    break;
                }
                if !self.take(closing(bracket)) {
                    return Err(self.syntax("expected `,` or the end of a list or object"));
                }
                open.pop();
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), JsonFault> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("key must be a string"));
        }
        self.quoted()?;
        if self.take(b':') { Ok(()) } else { Err(self.syntax("expected `:`")) }
    }

    /// Moves over one of the words that are values.
    fn skip_word(&mut self) -> Result<(), JsonFault> {
        let rest = self.rest();
        match words::VALUES.into_iter().find(|word| rest.starts_with(word)) {
            Some(word) => {
                self.at += word.len();
                Ok(())
            }
            None => Err(self.no_value("expected value")),
        }
    }

    /// No value stands here.
    #[cold]
    fn no_value(&self, words: &'static str) -> JsonFault {
        self.syntax(words::for_misspelt(self.rest()).unwrap_or(words))
    }
}

/// Where a number or a word begins behind a comma at `at`, and one blank at most. `gap` is how far the last one was from
/// its comma: most often it is as far again, and where it begins need not wait for a look at the blank.
#[inline]
fn scalar_behind_comma(bytes: &[u8], at: usize, gap: &mut usize) -> Option<usize> {
    let begins = |at: usize| bytes.get(at).is_some_and(|&byte| BEGINS_SCALAR[usize::from(byte)]);
    let is = |at: usize, byte: u8| bytes.get(at) == Some(&byte);
    if !is(at, b',') {
        return None;
    }
    if !((*gap == 1 || is(at + 1, b' ')) && begins(at + *gap)) {
        *gap = 1 + usize::from(is(at + 1, b' '));
        if !begins(at + *gap) {
            return None;
        }
    }
    Some(at + *gap)
}

/// Whether a number or a word begins with a byte. A table, as no branch predictor knows which numbers have a sign.
const BEGINS_SCALAR: [bool; 256] = {
    let mut begins = [false; 256];
    let mut byte = u8::MAX;
    while byte > 0 {
        begins[byte as usize] = matches!(byte, b'-' | b'0'..=b'9' | b'a'..=b'z' | b'N' | b'I');
        byte -= 1;
    }
    begins
};

fn closing(bracket: u8) -> u8 {
    if bracket == b'[' { b']' } else { b'}' }
}

/// A string with its quotes.
pub(super) struct Quoted<'a> {
    pub(super) text: &'a str,
    pub(super) has_escapes: bool,
}

impl<'a> Quoted<'a> {
    /// The text between the quotes.
    pub(super) fn inner(&self) -> &'a str {
        &self.text[1..self.text.len() - 1]
    }
}

/// How many bytes stand in a JSON string for themselves: up to a quote, a backslash or a
/// control character. Eight bytes at a time, with a zero byte found as in "Hacker's Delight".
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (controls | zeros(word ^ (ONES * 0x22)) | zeros(word ^ (ONES * 0x5c))) & HIGHS;
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let is_special = |&byte: &u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    words.len() * 8 + rest.iter().position(is_special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
