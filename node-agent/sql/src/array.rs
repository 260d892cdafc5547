//! Array texts, `{a,"b c",NULL}`: arrays are not values here, but lists in this form are read by ANY and
//! ALL, and ARRAY(subquery) writes them.

use crate::error::{SqlError, state};

/// The smallest allocation, for the text of a short item.
const ITEM_BYTES: usize = 32;

/// The items of a one-dimensional array text; None is NULL.
pub(crate) fn parse(text: &str) -> Result<Vec<Option<String>>, SqlError> {
    let malformed =
        || SqlError::new(state::INVALID_TEXT, format!("malformed array literal: \"{text}\""));
    let inner = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}'));
    let inner = inner.ok_or_else(malformed)?;
    let mut items = Vec::new();
    let mut characters = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Ok(items);
    }
    loop {
        while characters.next_if(|c| c.is_whitespace()).is_some() {}
        let mut item = String::new();
        let quoted = characters.next_if_eq(&'"').is_some();
        if quoted {
            loop {
                match characters.next().ok_or_else(malformed)? {
                    '"' => break,
                    '\\' => item.push(characters.next().ok_or_else(malformed)?),
                    other => item.push(other),
                }
            }
            while characters.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(next) = characters.next_if(|c| *c != ',') {
                match next {
                    '{' | '}' => return Err(SqlError::unsupported("an array of arrays")),
                    '"' => return Err(malformed()),
                    '\\' => item.push(characters.next().ok_or_else(malformed)?),
                    other => item.push(other),
                }
            }
            item.truncate(item.trim_end().len());
            if item.is_empty() {
                return Err(malformed());
            }
        }
        let null = !quoted && item.eq_ignore_ascii_case("null");
        items.push((!null).then_some(item));
        match characters.next() {
            None => return Ok(items),
            Some(',') => {}
            Some(_) => return Err(malformed()),
        }
    }
}

/// What the items of an array's text take when they are read, at most about.
pub(crate) fn parsed_bytes(text: &str) -> u64 {
    let items = 1 + text.bytes().filter(|byte| *byte == b',').count();
    // The list doubles as it grows.
    (items * (2 * size_of::<Option<String>>() + ITEM_BYTES) + text.len()) as u64
}

/// The text of an array with these items.
pub(crate) fn written<'a>(items: impl Iterator<Item = Option<&'a str>>) -> String {
    let mut text = Writer::default();
    for item in items {
        text.push(item);
    }
    text.finish()
}

/// Writes an array item by item.
#[derive(Default)]
pub(crate) struct Writer(String);

impl Writer {
    /// Adds an item; how many bytes it took.
    pub(crate) fn push(&mut self, item: Option<&str>) -> usize {
        let before = self.0.len();
        self.0.push(if before == 0 { '{' } else { ',' });
        match item {
            None => self.0.push_str("NULL"),
            Some(text) if is_plain(text) => self.0.push_str(text),
            Some(text) => {
                self.0.push('"');
                for character in text.chars() {
                    if matches!(character, '"' | '\\') {
                        self.0.push('\\');
                    }
                    self.0.push(character);
                }
                self.0.push('"');
            }
        }
        self.0.len() - before
    }

    /// The whole text.
    pub(crate) fn finish(mut self) -> String {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        self.0
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && !text.eq_ignore_ascii_case("null")
        && !text.contains(|c: char| c.is_whitespace() || ",{}\"\\".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let items = [Some("a"), None, Some(""), Some("b, \"c\" \\"), Some("null")];
        let text = written(items.into_iter());
        let back = parse(&text).unwrap();
        assert_eq!(back.iter().map(Option::as_deref).collect::<Vec<_>>(), items);
        assert_eq!(text, r#"{a,NULL,"","b, \"c\" \\","null"}"#);
        assert_eq!(written(std::iter::empty()), "{}");
        assert_eq!(parse("{}").unwrap().len(), 0);
        assert!(parse("{a,}").is_err());
        assert!(parse("a").is_err());
    }
}
