//! LIKE, and the part of PostgreSQL's regular expressions that people and psql use.
//!
//! Regular expressions know `. * + ? {m,n} | ( ) [ ] ^ $`, classes (`\d \w \s [:alpha:]`) and escapes. Matching
//! backtracks with a bound on its steps. Back references and look-around are refused, never guessed.

use crate::error::{SqlError, state};
use std::cell::Cell;

/// Steps one match may take: enough for catalogs and short texts, a bound against runaway patterns.
const STEPS_MAX: usize = 1_000_000;

/// Repetitions followed on the stack; longer runs do not match.
const REPEATS_MAX: usize = 2_000;

/// Whether the whole text matches: `%` any run, `_` any character.
pub(crate) fn like(text: &str, pattern: &str, escape: Option<char>) -> Result<bool, SqlError> {
    let mut items = Vec::with_capacity(pattern.len());
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        items.push(match character {
            character if Some(character) == escape => match characters.next() {
                Some(literal) => LikeItem::Exactly(literal),
                None => {
                    return Err(SqlError::new(
                        state::INVALID_ESCAPE,
                        "LIKE pattern must not end with escape character",
                    ));
                }
            },
            '%' => LikeItem::Run,
            '_' => LikeItem::Any,
            literal => LikeItem::Exactly(literal),
        });
    }
    let text: Vec<char> = text.chars().collect();
    Ok(like_items(&text, &items))
}

#[derive(Clone, Copy, PartialEq)]
enum LikeItem {
    Exactly(char),
    Any,
    Run,
}

/// Greedy with one place to fall back to: linear in practice, quadratic at worst.
fn like_items(text: &[char], items: &[LikeItem]) -> bool {
    let (mut at, mut item) = (0, 0);
    let mut fallback: Option<(usize, usize)> = None;
    while at < text.len() {
        match items.get(item) {
            Some(LikeItem::Run) => {
                item += 1;
                fallback = Some((item, at));
                continue;
            }
            Some(LikeItem::Any) => {}
            Some(LikeItem::Exactly(literal)) if *literal == text[at] => {}
            _ => {
                let Some((after, from)) = fallback else { return false };
                item = after;
                at = from + 1;
                fallback = Some((after, from + 1));
                continue;
            }
        }
        at += 1;
        item += 1;
    }
    items[item..].iter().all(|rest| *rest == LikeItem::Run)
}

/// A compiled regular expression.
#[derive(Debug)]
pub(crate) struct Regex {
    root: Piece,
}

#[derive(Debug, Clone)]
enum Piece {
    Start,
    End,
    Any,
    Literal(char),
    Set { members: Vec<(char, char)>, negated: bool },
    Sequence(Vec<Piece>),
    Either(Vec<Piece>),
    Repeat { piece: Box<Piece>, least: usize, most: usize, lazy: bool },
}

struct Compiler<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

fn invalid(what: &str) -> SqlError {
    SqlError::new(state::INVALID_REGEX, format!("invalid regular expression: {what}"))
}

impl Regex {
    /// Compiles a pattern.
    pub(crate) fn new(pattern: &str) -> Result<Regex, SqlError> {
        let mut compiler = Compiler { rest: pattern.chars().peekable() };
        let root = compiler.either(0)?;
        match compiler.rest.next() {
            None => Ok(Regex { root }),
            Some(_) => Err(invalid("parentheses () not balanced")),
        }
    }

    /// Whether the pattern matches anywhere in the text.
    pub(crate) fn is_match(&self, text: &str) -> bool {
        self.find(text).is_some()
    }

    /// The first match, as character offsets.
    pub(crate) fn find(&self, text: &str) -> Option<(usize, usize)> {
        let text: Vec<char> = text.chars().collect();
        let steps = Cell::new(0);
        (0..=text.len()).find_map(|start| {
            let mut end = None;
            let matcher = Matcher { text: &text, steps: &steps };
            matcher.piece(&self.root, start, &mut |at| {
                end = Some(at);
                true
            });
            end.map(|end| (start, end))
        })
    }
}

impl Compiler<'_> {
    fn either(&mut self, depth: usize) -> Result<Piece, SqlError> {
        if depth > 50 {
            return Err(invalid("too many nested parentheses"));
        }
        let mut choices = vec![self.sequence(depth)?];
        while self.rest.next_if_eq(&'|').is_some() {
            choices.push(self.sequence(depth)?);
        }
        Ok(if choices.len() == 1 { choices.remove(0) } else { Piece::Either(choices) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Piece, SqlError> {
        let mut pieces = Vec::new();
        while let Some(next) = self.rest.peek() {
            if matches!(next, '|' | ')') {
                break;
            }
            let piece = self.atom(depth)?;
            pieces.push(self.repeated(piece)?);
        }
        Ok(Piece::Sequence(pieces))
    }

    fn atom(&mut self, depth: usize) -> Result<Piece, SqlError> {
        Ok(match self.rest.next() {
            Some('^') => Piece::Start,
            Some('$') => Piece::End,
            Some('.') => Piece::Any,
            Some('(') => {
                if self.rest.next_if_eq(&'?').is_some() && self.rest.next() != Some(':') {
                    return Err(SqlError::unsupported("look-around in a regular expression"));
                }
                let inner = self.either(depth + 1)?;
                if self.rest.next() != Some(')') {
                    return Err(invalid("parentheses () not balanced"));
                }
                inner
            }
            Some('[') => self.set()?,
            Some('\\') => self.escape()?,
            Some('*' | '+' | '?') => return Err(invalid("quantifier operand invalid")),
            Some(literal) => Piece::Literal(literal),
            None => Piece::Sequence(Vec::new()),
        })
    }

    fn escape(&mut self) -> Result<Piece, SqlError> {
        let set =
            |members: &[(char, char)], negated| Piece::Set { members: members.to_vec(), negated };
        let code = self.rest.next().ok_or_else(|| invalid("invalid escape \\ sequence"))?;
        Ok(match code {
            'd' | 'D' => set(DIGITS, code == 'D'),
            'w' | 'W' => set(WORD, code == 'W'),
            's' | 'S' => set(SPACE, code == 'S'),
            'n' => Piece::Literal('\n'),
            't' => Piece::Literal('\t'),
            'r' => Piece::Literal('\r'),
            'A' => Piece::Start,
            'Z' => Piece::End,
            code if code.is_alphanumeric() => {
                return Err(SqlError::unsupported(format!("\\{code} in a regular expression")));
            }
            literal => Piece::Literal(literal),
        })
    }

    fn set(&mut self) -> Result<Piece, SqlError> {
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut members = Vec::new();
        let unbalanced = || invalid("brackets [] not balanced");
        loop {
            let next = self.rest.next().ok_or_else(unbalanced)?;
            let from = match next {
                ']' if !members.is_empty() => return Ok(Piece::Set { members, negated }),
                '[' if self.rest.next_if_eq(&':').is_some() => {
                    members.extend_from_slice(self.class()?);
                    continue;
                }
                '\\' => match self.escape()? {
                    Piece::Set { members: inner, negated: false } => {
                        members.extend(inner);
                        continue;
                    }
                    Piece::Literal(literal) => literal,
                    _ => return Err(invalid("invalid escape \\ sequence")),
                },
                literal => literal,
            };
            if self.rest.peek() == Some(&'-') {
                self.rest.next();
                match self.rest.peek() {
                    Some(']') => members.extend([(from, from), ('-', '-')]),
                    Some(_) => {
                        let to = self.rest.next().ok_or_else(unbalanced)?;
                        if to < from {
                            return Err(invalid("invalid character range"));
                        }
                        members.push((from, to));
                    }
                    None => return Err(unbalanced()),
                }
            } else {
                members.push((from, from));
            }
        }
    }

    fn class(&mut self) -> Result<&'static [(char, char)], SqlError> {
        let name: String = std::iter::from_fn(|| self.rest.next_if(|c| *c != ':')).collect();
        self.rest.next();
        self.rest.next();
        match name.as_str() {
            "alpha" => Ok(&[('a', 'z'), ('A', 'Z')]),
            "digit" => Ok(DIGITS),
            "alnum" => Ok(&[('a', 'z'), ('A', 'Z'), ('0', '9')]),
            "space" => Ok(SPACE),
            "upper" => Ok(&[('A', 'Z')]),
            "lower" => Ok(&[('a', 'z')]),
            _ => Err(invalid("invalid character class")),
        }
    }

    fn repeated(&mut self, piece: Piece) -> Result<Piece, SqlError> {
        let (least, most) = match self.rest.peek() {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            Some('{') => {
                let text: String = self.rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
                let bad = |_| invalid("invalid repetition count(s)");
                let (least, most) = match text.split_once(',') {
                    Some((least, "")) => (least.parse().map_err(bad)?, usize::MAX),
                    Some((least, most)) => {
                        (least.parse().map_err(bad)?, most.parse().map_err(bad)?)
                    }
                    None => {
                        let count = text.parse().map_err(bad)?;
                        (count, count)
                    }
                };
                let lazy = self.rest.next_if_eq(&'?').is_some();
                return Ok(Piece::Repeat { piece: Box::new(piece), least, most, lazy });
            }
            _ => return Ok(piece),
        };
        self.rest.next();
        let lazy = self.rest.next_if_eq(&'?').is_some();
        Ok(Piece::Repeat { piece: Box::new(piece), least, most, lazy })
    }
}

const DIGITS: &[(char, char)] = &[('0', '9')];
const WORD: &[(char, char)] = &[('a', 'z'), ('A', 'Z'), ('0', '9'), ('_', '_')];
const SPACE: &[(char, char)] = &[(' ', ' '), ('\t', '\r')];

/// The text and the steps taken in it, shared by all the places a match is tried from.
#[derive(Clone, Copy)]
struct Matcher<'a> {
    text: &'a [char],
    steps: &'a Cell<usize>,
}

impl Matcher<'_> {
    /// Tries the piece at a place; `then` says whether the rest matches from where the piece ended.
    fn piece(self, piece: &Piece, at: usize, then: &mut dyn FnMut(usize) -> bool) -> bool {
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS_MAX {
            return false;
        }
        match piece {
            Piece::Start => at == 0 && then(at),
            Piece::End => at == self.text.len() && then(at),
            Piece::Any => at < self.text.len() && then(at + 1),
            Piece::Literal(literal) => self.text.get(at) == Some(literal) && then(at + 1),
            Piece::Set { members, negated } => {
                let inside = |c: &char| members.iter().any(|(from, to)| from <= c && c <= to);
                self.text.get(at).is_some_and(|c| inside(c) != *negated) && then(at + 1)
            }
            Piece::Sequence(pieces) => self.sequence(pieces, at, then),
            Piece::Either(choices) => choices.iter().any(|choice| self.piece(choice, at, then)),
            Piece::Repeat { piece, least, most, lazy } => {
                self.repeat((piece, *least, *most, *lazy), 0, at, then)
            }
        }
    }

    fn sequence(self, pieces: &[Piece], at: usize, then: &mut dyn FnMut(usize) -> bool) -> bool {
        match pieces.split_first() {
            None => then(at),
            Some((first, rest)) => {
                self.piece(first, at, &mut |next| self.sequence(rest, next, then))
            }
        }
    }

    fn repeat(
        self,
        spec: (&Piece, usize, usize, bool),
        count: usize,
        at: usize,
        then: &mut dyn FnMut(usize) -> bool,
    ) -> bool {
        let (piece, least, most, lazy) = spec;
        if lazy && count >= least && then(at) {
            return true;
        }
        if count < most
            && count < REPEATS_MAX
            && self.piece(piece, at, &mut |next| {
                (next != at || count < least) && self.repeat(spec, count + 1, next, then)
            })
        {
            return true;
        }
        !lazy && count >= least && then(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, text: &str) -> bool {
        Regex::new(pattern).unwrap().is_match(text)
    }

    #[test]
    fn like_matches_runs_and_escapes() {
        let like = |text, pattern| like(text, pattern, Some('\\')).unwrap();
        assert!(like("abcabd", "%ab_"));
        assert!(!like("abc", "ab"));
        assert!(like("a%c", "a\\%c"));
        assert!(!like("abc", "a\\%c"));
        assert!(like("", "%"));
    }

    #[test]
    fn regular_expressions_of_psql_match() {
        assert!(found("^(pgbench_accounts)$", "pgbench_accounts"));
        assert!(!found("^(pgbench_accounts)$", "pgbench_account"));
        assert!(found("^(t.*)$", "tellers"));
        assert!(found("a{2,3}b", "caab"));
        assert!(found("(ab|c)+d", "abcabd"));
        assert!(found("[^a-c]$", "abd"));
        assert!(!found("^pg_toast", "pgbench"));
        assert!(found("^\\d+-[[:alpha:]]+$", "42-ab"));
    }

    #[test]
    fn a_runaway_pattern_ends() {
        let _ = found("(a*)*(a*)*b", &"a".repeat(60));
    }
}
