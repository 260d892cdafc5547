//! What the project's own checks share: where the sources are, what counts as code in them, and the servers
//! of a comparison.

pub mod alone;
pub mod history;
pub mod servers;
pub mod sieve;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// One Rust source file.
#[derive(Debug)]
pub struct Source {
    /// Path relative to the repository's root.
    pub path: PathBuf,
    /// The whole text.
    pub text: String,
}

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root").to_owned()
}

/// Every Rust file of the repository.
///
/// # Errors
/// When a directory or a file cannot be read.
pub fn sources() -> anyhow::Result<Vec<Source>> {
    let mut found = Vec::new();
    collect(&root(), &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(directory: &Path, found: &mut Vec<Source>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path)?;
            let path = path.strip_prefix(root())?.to_owned();
            found.push(Source { path, text });
        }
    }
    Ok(())
}

impl Source {
    /// Whether the file is a test by its place.
    #[must_use]
    pub fn is_test(&self) -> bool {
        let in_tests = self.path.components().any(|c| c.as_os_str() == "tests");
        let name = self.path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        in_tests || name == "tests.rs" || name.ends_with("_tests.rs") || name == "testing.rs"
    }

    /// Lines before the file's test module.
    #[must_use]
    pub fn lines_without_tests(&self) -> usize {
        self.text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
    }

    /// The code without comments and string literals, and without the test module.
    #[must_use]
    pub fn code(&self) -> String {
        let end = self.text.find("\n#[cfg(test)]\n").unwrap_or(self.text.len());
        strip(&self.text[..end])
    }
}

/// Takes comments and string literals out of Rust source. Rough, and enough for looking for words.
#[must_use]
pub fn strip(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if rest.starts_with("r#\"") {
            rest = rest[3..].find("\"#").map_or("", |end| &rest[end + 5..]);
        } else if first == '"' {
            rest = after_string(&rest[1..]);
            out.push(' ');
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest = &rest[if rest.starts_with("'\"'") { 3 } else { 4 }..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn after_string(text: &str) -> &str {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// The identifiers of stripped code, split at underscores and capitals, in lower case.
pub fn words(code: &str) -> impl Iterator<Item = String> + '_ {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').flat_map(split_identifier)
}

fn split_identifier(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_lower = false;
    for character in identifier.chars() {
        if character == '_' || character.is_uppercase() && before_lower {
            words.push(String::new());
        }
        before_lower = character.is_lowercase() || character.is_ascii_digit();
        if character != '_'
            && let Some(last) = words.last_mut()
        {
            last.extend(character.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_not_code() {
        let code = strip("let a = \"master // \\\" x\"; // slave\nlet b = '\"'; /* leader */ c");
        assert!(!code.contains("master") && !code.contains("slave") && !code.contains("leader"));
        assert!(code.contains("let b") && code.ends_with(" c"));
    }

    #[test]
    fn identifiers_fall_into_words() {
        let found: Vec<_> = words("fn isMaster_node(HTTPServer: u8)").collect();
        assert_eq!(found, ["fn", "is", "master", "node", "httpserver", "u8"]);
    }
}
