//! The byte format of COPY: text and csv, both ways. Pure: bytes in, fields out.
//!
//! A [`CopyDecoder`] is fed whatever chunks arrive and yields whole lines' fields; it never looks at
//! types, so errors of a field's value are the caller's and carry the line number from here.

use crate::error::{SqlError, state};

/// The two line formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Tab separated, backslash escapes, `\N` for null.
    Text,
    /// Comma separated, quoted, empty unquoted field for null.
    Csv,
}

/// Format and its details, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    /// Text or csv.
    pub format: CopyFormat,
    /// Between fields.
    pub delimiter: u8,
    /// How null is written.
    pub null: String,
    /// The first line holds column names: skipped on input, written on output.
    pub header: bool,
    /// Csv only.
    pub quote: u8,
    /// Csv only; what stands before a quote inside quotes.
    pub escape: u8,
}

impl CopyOptions {
    /// PostgreSQL's defaults of a format.
    #[must_use]
    pub fn new(format: CopyFormat) -> CopyOptions {
        let (delimiter, null) = match format {
            CopyFormat::Text => (b'\t', "\\N"),
            CopyFormat::Csv => (b',', ""),
        };
        CopyOptions {
            format,
            delimiter,
            null: null.to_owned(),
            header: false,
            quote: b'"',
            escape: b'"',
        }
    }
}

/// The fields of one line; None is null.
pub type CopyFields = Vec<Option<String>>;

/// Turns a stream of chunks into lines of fields.
#[derive(Debug)]
pub struct CopyDecoder {
    options: CopyOptions,
    buffer: Vec<u8>,
    start: usize,
    line: u64,
    ended: bool,
    skip_header: bool,
}

impl CopyDecoder {
    /// A decoder at the beginning of the stream.
    #[must_use]
    pub fn new(options: CopyOptions) -> CopyDecoder {
        let skip_header = options.header;
        CopyDecoder { options, buffer: Vec::new(), start: 0, line: 0, ended: false, skip_header }
    }

    /// Takes more bytes.
    pub fn feed(&mut self, chunk: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(chunk);
    }

    /// The number of the line returned last, from 1, for "COPY t, line 3".
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The next whole line; None until more bytes are fed.
    ///
    /// # Errors
    /// 22P04 for a broken format, 22021 for bytes that are not UTF-8.
    pub fn next_line(&mut self) -> Result<Option<CopyFields>, SqlError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let Some(length) = self.line_length() else { return Ok(None) };
            let end = self.start + length;
            let fields = self.take_line(end);
            self.start = end + 1;
            if let Some(fields) = fields? {
                return Ok(Some(fields));
            }
        }
    }

    /// The last line, when the stream ends without a newline.
    ///
    /// # Errors
    /// As [`CopyDecoder::next_line`]; 22P04 for an unterminated quoted field.
    pub fn finish(&mut self) -> Result<Option<CopyFields>, SqlError> {
        if let Some(fields) = self.next_line()? {
            return Ok(Some(fields));
        }
        if self.ended || self.start >= self.buffer.len() {
            return Ok(None);
        }
        let end = self.buffer.len();
        let fields = self.take_line(end);
        self.start = end;
        fields
    }

    /// Bytes up to the newline that ends a line; newlines inside csv quotes do not count.
    fn line_length(&self) -> Option<usize> {
        let rest = &self.buffer[self.start..];
        match self.options.format {
            CopyFormat::Text => {
                let mut from = 0;
                loop {
                    let at = from + rest[from..].iter().position(|byte| *byte == b'\n')?;
                    let slashes = rest[..at].iter().rev().take_while(|b| **b == b'\\').count();
                    if slashes % 2 == 0 {
                        return Some(at);
                    }
                    from = at + 1;
                }
            }
            CopyFormat::Csv => {
                let (mut quoted, mut escaped) = (false, false);
                for (at, byte) in rest.iter().enumerate() {
                    if escaped {
                        escaped = false;
                    } else if quoted
                        && *byte == self.options.escape
                        && self.options.escape != self.options.quote
                    {
                        escaped = true;
                    } else if *byte == self.options.quote {
                        quoted = !quoted;
                    } else if *byte == b'\n' && !quoted {
                        return Some(at);
                    }
                }
                None
            }
        }
    }

    fn take_line(&mut self, end: usize) -> Result<Option<CopyFields>, SqlError> {
        self.line += 1;
        let mut bytes = &self.buffer[self.start..end];
        if let Some(without) = bytes.strip_suffix(b"\r") {
            bytes = without;
        }
        if bytes == b"\\." {
            self.ended = true;
            return Ok(None);
        }
        if std::mem::take(&mut self.skip_header) {
            return Ok(None);
        }
        let line = std::str::from_utf8(bytes).map_err(|_| {
            SqlError::new(state::BAD_ENCODING, "invalid byte sequence for encoding \"UTF8\"")
        })?;
        match self.options.format {
            CopyFormat::Text => text_fields(line, &self.options).map(Some),
            CopyFormat::Csv => csv_fields(line, &self.options).map(Some),
        }
    }
}

fn text_fields(line: &str, options: &CopyOptions) -> Result<CopyFields, SqlError> {
    let mut fields = Vec::new();
    let bytes = line.as_bytes();
    let mut start = 0;
    let mut at = 0;
    while at <= bytes.len() {
        if at == bytes.len() || bytes[at] == options.delimiter {
            let raw = &line[start..at];
            fields.push(if raw == options.null { None } else { Some(unescape(raw)?) });
            start = at + 1;
        } else if bytes[at] == b'\\' {
            at += 1;
        }
        at += 1;
    }
    Ok(fields)
}

fn unescape(raw: &str) -> Result<String, SqlError> {
    if !raw.contains('\\') {
        return Ok(raw.to_owned());
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let Some((code, tail)) = rest.split_first() else {
            bytes.push(b'\\');
            break;
        };
        rest = tail;
        match code {
            b'b' => bytes.push(8),
            b'f' => bytes.push(12),
            b'n' => bytes.push(b'\n'),
            b'r' => bytes.push(b'\r'),
            b't' => bytes.push(b'\t'),
            b'v' => bytes.push(11),
            b'0'..=b'7' => {
                let digits = octal_digits(rest);
                let tail = &rest[digits..];
                let value = rest[..digits]
                    .iter()
                    .fold(u32::from(code - b'0'), |sum, digit| sum * 8 + u32::from(digit - b'0'));
                bytes.push(value as u8);
                rest = tail;
            }
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
                let digits = rest.iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
                let value = rest[..digits]
                    .iter()
                    .filter_map(|byte| (*byte as char).to_digit(16))
                    .fold(0, |sum, digit| sum * 16 + digit);
                bytes.push(value as u8);
                rest = &rest[digits..];
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8(bytes).map_err(|_| {
        SqlError::new(state::BAD_ENCODING, "invalid byte sequence for encoding \"UTF8\"")
    })
}

fn octal_digits(rest: &[u8]) -> usize {
    rest.iter().take(2).take_while(|byte| (b'0'..=b'7').contains(*byte)).count()
}

fn csv_fields(line: &str, options: &CopyOptions) -> Result<CopyFields, SqlError> {
    let mut fields = Vec::new();
    let mut field = Vec::new();
    let (mut was_quoted, mut inside) = (false, false);
    let mut bytes = line.bytes().peekable();
    let mut finish = |field: &mut Vec<u8>, was_quoted: &mut bool| {
        // Cut at ASCII bytes only, so the parts of UTF-8 text are UTF-8.
        let text = String::from_utf8_lossy(field).into_owned();
        fields.push(if !*was_quoted && text == options.null { None } else { Some(text) });
        field.clear();
        *was_quoted = false;
    };
    while let Some(byte) = bytes.next() {
        if inside {
            let next = bytes.peek().copied();
            if byte == options.escape
                && (next == Some(options.quote)
                    || (options.escape != options.quote && next == Some(options.escape)))
            {
                field.extend(bytes.next());
            } else if byte == options.quote {
                inside = false;
            } else {
                field.push(byte);
            }
        } else if byte == options.quote {
            inside = true;
            was_quoted = true;
        } else if byte == options.delimiter {
            finish(&mut field, &mut was_quoted);
        } else {
            field.push(byte);
        }
    }
    if inside {
        return Err(SqlError::new(state::BAD_COPY, "unterminated CSV quoted field"));
    }
    finish(&mut field, &mut was_quoted);
    Ok(fields)
}

/// Appends one line, newline included. A field is the wire's text form; None is null.
pub fn append_copy_line<'a>(
    out: &mut Vec<u8>,
    fields: impl Iterator<Item = Option<&'a str>>,
    options: &CopyOptions,
) {
    for (position, field) in fields.enumerate() {
        if position > 0 {
            out.push(options.delimiter);
        }
        match (field, options.format) {
            (None, _) => out.extend_from_slice(options.null.as_bytes()),
            (Some(text), CopyFormat::Text) => append_escaped(out, text, options.delimiter),
            (Some(text), CopyFormat::Csv) => append_quoted(out, text, options),
        }
    }
    out.push(b'\n');
}

fn append_escaped(out: &mut Vec<u8>, text: &str, delimiter: u8) {
    for byte in text.bytes() {
        let code = match byte {
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            11 => b'v',
            b'\\' => b'\\',
            byte if byte == delimiter => byte,
            byte => {
                out.push(byte);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', code]);
    }
}

fn append_quoted(out: &mut Vec<u8>, text: &str, options: &CopyOptions) {
    let special = |byte: u8| {
        byte == options.delimiter || byte == options.quote || byte == b'\n' || byte == b'\r'
    };
    if !text.bytes().any(special) && text != options.null && text != "\\." {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(options.quote);
    for byte in text.bytes() {
        if byte == options.quote || byte == options.escape {
            out.push(options.escape);
        }
        out.push(byte);
    }
    out.push(options.quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(options: &CopyOptions, bytes: &[u8], chunk: usize) -> Vec<CopyFields> {
        let mut decoder = CopyDecoder::new(options.clone());
        let mut lines = Vec::new();
        for part in bytes.chunks(chunk.max(1)) {
            decoder.feed(part);
            while let Some(line) = decoder.next_line().unwrap() {
                lines.push(line);
            }
        }
        lines.extend(decoder.finish().unwrap());
        lines
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of("[a-c,\"\\\\\n\r\té]{0,6}"), 2..4), 1..6),
            chunk in 1..9_usize,
        ) {
            for format in [CopyFormat::Text, CopyFormat::Csv] {
                let options = CopyOptions::new(format);
                let mut bytes = Vec::new();
                for row in &rows {
                    append_copy_line(&mut bytes, row.iter().map(Option::as_deref), &options);
                }
                prop_assert_eq!(&decode(&options, &bytes, chunk), &rows);
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for format in [CopyFormat::Text, CopyFormat::Csv] {
                let mut decoder = CopyDecoder::new(CopyOptions::new(format));
                decoder.feed(&bytes);
                while let Ok(Some(_)) = decoder.next_line() {}
                let _ = decoder.finish();
            }
        }
    }

    #[test]
    fn pgbench_lines_and_the_end_marker_are_understood() {
        let options = CopyOptions::new(CopyFormat::Text);
        let lines = decode(&options, b"1\t\\N\tx\\ty\n2\t\t \n\\.\nrest\n", 4);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            lines,
            [vec![some("1"), None, some("x\ty")], vec![some("2"), some(""), some(" ")]]
        );
    }
}
