//! Text for the readers of messages.

use std::io;

/// An operating system's reason in words, without the number that Rust adds.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

/// The text as one line, without NUL or any other control character.
///
/// File and export names may hold anything, terminal escapes included.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn text_is_made_one_harmless_line() {
        assert_eq!(one_line("a\x1b[31mb\nc\0d"), "a?[31mb?c?d");
    }
}
