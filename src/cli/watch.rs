//! Watching a view: asked for again and again, refreshed in place on a terminal.

use std::{
    io::{self, Write},
    time::Duration,
};

/// A picture of what is watched.
pub(super) struct Shown {
    pub(super) text: String,
    /// Nothing more will change.
    pub(super) is_last: bool,
}

impl From<String> for Shown {
    fn from(text: String) -> Self {
        Self { text, is_last: false }
    }
}

/// Shows what `ask` gives, again after each `pause`, until the last picture or until there is nobody to show it to. On a terminal
/// each picture replaces the one before; elsewhere they follow one another.
///
/// What fails later is told and tried again: a gateway that restarts is worth waiting for.
///
/// # Errors
/// When the first question fails.
pub(super) fn watch<E: std::fmt::Display>(
    mut ask: impl FnMut() -> Result<Shown, E>,
    mut pause: impl FnMut(),
    out: &mut impl Write,
    is_terminal: bool,
) -> Result<(), E> {
    let mut shown = ask()?;
    loop {
        // An error most often means that the reader has seen enough (`| head`).
        if show(&shown.text, out, is_terminal).is_err() || shown.is_last {
            return Ok(());
        }
        pause();
        shown =
            ask().unwrap_or_else(|error| format!("error: {}\n", super::output::printable(&error.to_string())).into());
    }
}

fn show(text: &str, out: &mut impl Write, is_terminal: bool) -> io::Result<()> {
    /// Home; and to the end of the line, and of the screen.
    const HOME: &str = "\x1b[H";
    const REST_OF_LINE: &str = "\x1b[K\n";
    const REST: &str = "\x1b[J";
    if is_terminal {
        // Written over, not cleared first: clearing flickers.
        write!(out, "{HOME}{}{REST}", text.replace('\n', REST_OF_LINE))?;
    } else {
        write!(out, "{text}")?;
    }
    out.flush()
}

/// From 100 ms, below which nobody sees a difference, to an hour.
pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let range = Duration::from_millis(100)..=Duration::from_hours(1);
    humantime::parse_duration(text)
        .ok()
        .filter(|interval| range.contains(interval))
        .ok_or_else(|| "use a duration from 100ms to 1h, such as 2s".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// Takes some pictures, then is gone.
    struct Reader {
        seen: String,
        left: usize,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.left == 0 {
                return Err(ErrorKind::BrokenPipe.into());
            }
            self.seen += &String::from_utf8_lossy(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.left -= 1;
            Ok(())
        }
    }

    fn watched(answers: &[Result<&str, &str>], is_terminal: bool) -> (Result<(), String>, String) {
        let mut answers = answers.iter().map(|answer| answer.map(str::to_owned).map_err(str::to_owned));
        let mut reader = Reader { seen: String::new(), left: answers.len() - 1 };
        let mut next =
            || answers.next().unwrap().map(|text| Shown { is_last: text.contains("over"), ..Shown::from(text) });
        let outcome = watch(&mut next, || {}, &mut reader, is_terminal);
        (outcome, reader.seen)
    }

    #[test]
    fn pictures_follow_one_another_until_the_reader_is_gone() {
        let (outcome, seen) = watched(&[Ok("one\n"), Err("no answer"), Ok("two\n"), Ok("three\n")], false);
        assert_eq!((outcome, seen.as_str()), (Ok(()), "one\nerror: no answer\ntwo\n"));
    }

    #[test]
    fn pictures_replace_one_another_on_a_terminal() {
        let (_, seen) = watched(&[Ok("one\n"), Ok("two\n")], true);
        assert_eq!(seen, "\x1b[Hone\x1b[K\n\x1b[J");
    }

    #[test]
    fn last_picture_is_shown_and_ends_it() {
        let (outcome, seen) = watched(&[Ok("one\n"), Ok("over\n"), Ok("never\n"), Ok("asked\n")], false);
        assert_eq!((outcome, seen.as_str()), (Ok(()), "one\nover\n"));
    }

    #[test]
    fn question_that_fails_at_once_is_a_failure() {
        assert_eq!(watched(&[Err("unknown model"), Ok("")], false), (Err("unknown model".to_owned()), String::new()));
    }

    #[test]
    fn interval_has_sensible_bounds() {
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        for bad in ["0s", "1ms", "2h", "soon"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
