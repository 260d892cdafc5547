//! Messages of a client, read in place.
//!
//! [`first_frame`] finds one whole message at the head of a buffer; the views below read its body
//! without copying. Invariants: nothing here panics or allocates by a length that the client claims;
//! every length is checked against the bytes that are there.

use std::str::from_utf8;

/// Tag and length word.
pub(super) const HEADER_BYTES: usize = 5;

/// What is wrong with the bytes. After a broken frame the stream has no meaning any more; after a
/// broken body it still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// The length word is below four.
    #[error("invalid message length")]
    Length,
    /// The message is longer than this server takes.
    #[error("a message of {bytes} bytes is longer than the {limit} bytes that this server takes")]
    TooLong {
        /// The claimed length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The body is shorter or longer than its own counts say.
    #[error("invalid message format")]
    Body,
    /// A string is not UTF-8.
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    Utf8,
}

/// One whole message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// Its kind.
    pub(super) tag: u8,
    /// Everything after the length word.
    pub(super) body: &'a [u8],
}

impl Frame<'_> {
    /// Bytes on the wire.
    pub(super) fn total(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// The message at the head of the buffer; None until it has arrived as a whole.
pub(super) fn first_frame(buffer: &[u8], limit: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((head, rest)) = buffer.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length < 4 {
        return Err(FrameError::Length);
    }
    if length > limit {
        return Err(FrameError::TooLong { bytes: length, limit });
    }
    Ok(rest.get(..length - 4).map(|body| Frame { tag: head[0], body }))
}

/// A cursor over a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(FrameError::Body)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FrameError> {
        Ok(self.bytes(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, FrameError> {
        let (taken, rest) = self.0.split_first_chunk::<2>().ok_or(FrameError::Body)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*taken))
    }

    pub(super) fn i32(&mut self) -> Result<i32, FrameError> {
        let (taken, rest) = self.0.split_first_chunk::<4>().ok_or(FrameError::Body)?;
        self.0 = rest;
        Ok(i32::from_be_bytes(*taken))
    }

    /// A string that ends with a zero byte.
    pub(super) fn text(&mut self) -> Result<&'a str, FrameError> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(FrameError::Body)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        from_utf8(text).map_err(|_| FrameError::Utf8)
    }

    /// A counted value; None is null.
    pub(super) fn value(&mut self) -> Result<Option<&'a [u8]>, FrameError> {
        match self.i32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| FrameError::Body)?;
                self.bytes(length).map(Some)
            }
        }
    }

    pub(super) fn end(self) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Body) }
    }
}

/// Text or binary, as Bind asks for it column by column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// The text form.
    Text,
    /// PostgreSQL's binary form.
    Binary,
}

/// The format codes of a Bind: none (all text), one for all, or one each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Formats<'a>(&'a [u8]);

impl<'a> Formats<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Formats<'a>, FrameError> {
        let count = usize::from(reader.u16()?);
        let codes = reader.bytes(count * 2)?;
        let known = codes.chunks_exact(2).all(|code| code[0] == 0 && code[1] <= 1);
        if known { Ok(Formats(codes)) } else { Err(FrameError::Body) }
    }

    /// How many codes were given.
    pub(super) fn count(self) -> usize {
        self.0.len() / 2
    }

    /// The format of a column.
    pub(super) fn of(self, column: usize) -> Format {
        let code = match self.0 {
            [] => 0,
            [_, code] => *code,
            codes => codes.get(column * 2 + 1).copied().unwrap_or(0),
        };
        if code == 1 { Format::Binary } else { Format::Text }
    }

    /// Whether every column is in text.
    pub(super) fn are_text(self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The code of a column as RowDescription carries it.
    pub(super) fn code(self, column: usize) -> u16 {
        match self.of(column) {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }

    /// The codes as the client sent them; [`Formats::from_raw`] takes them back.
    pub(super) fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Codes that were read before.
    pub(super) fn from_raw(codes: &'a [u8]) -> Formats<'a> {
        Formats(codes)
    }
}

/// Parse: a statement to prepare.
#[derive(Debug)]
pub(super) struct ParseView<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    /// Four bytes each: the type of a parameter, zero when the server is to find it out.
    types: &'a [u8],
}

impl<'a> ParseView<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<ParseView<'a>, FrameError> {
        let mut reader = Reader(body);
        let (name, text) = (reader.text()?, reader.text()?);
        let count = usize::from(reader.u16()?);
        let types = reader.bytes(count * 4)?;
        reader.end()?;
        Ok(ParseView { name, text, types })
    }

    /// The declared types; zero means undeclared.
    pub(super) fn types(&self) -> impl Iterator<Item = u32> {
        self.types.chunks_exact(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }
}

/// Bind: a statement with its parameters.
#[derive(Debug, Clone, Copy)]
pub(super) struct BindView<'a> {
    pub(super) portal: &'a str,
    pub(super) statement: &'a str,
    pub(super) formats: Formats<'a>,
    pub(super) parameter_count: usize,
    /// At the first parameter; its lengths have been checked.
    pub(super) parameters: Reader<'a>,
    pub(super) result_formats: Formats<'a>,
}

impl<'a> BindView<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<BindView<'a>, FrameError> {
        let mut reader = Reader(body);
        let (portal, statement) = (reader.text()?, reader.text()?);
        let formats = Formats::read(&mut reader)?;
        let parameter_count = usize::from(reader.u16()?);
        let parameters = reader;
        for _ in 0..parameter_count {
            reader.value()?;
        }
        let result_formats = Formats::read(&mut reader)?;
        reader.end()?;
        if formats.count() > 1 && formats.count() != parameter_count {
            return Err(FrameError::Body);
        }
        Ok(BindView { portal, statement, formats, parameter_count, parameters, result_formats })
    }
}

/// What Describe and Close are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// A prepared statement.
    Statement(&'a str),
    /// A portal.
    Portal(&'a str),
}

impl<'a> Target<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Target<'a>, FrameError> {
        let mut reader = Reader(body);
        let kind = reader.u8()?;
        let name = reader.text()?;
        reader.end()?;
        match kind {
            b'S' => Ok(Target::Statement(name)),
            b'P' => Ok(Target::Portal(name)),
            _ => Err(FrameError::Body),
        }
    }
}

/// Execute: a portal and how many rows at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExecuteView<'a> {
    pub(super) portal: &'a str,
    /// Zero: all.
    pub(super) rows_max: usize,
}

impl<'a> ExecuteView<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<ExecuteView<'a>, FrameError> {
        let mut reader = Reader(body);
        let portal = reader.text()?;
        // A negative limit means "all", as in PostgreSQL.
        let rows_max = usize::try_from(reader.i32()?).unwrap_or(0);
        reader.end()?;
        Ok(ExecuteView { portal, rows_max })
    }
}

/// The one string of a Query, a CopyFail or a password message.
pub(super) fn only_text(body: &[u8]) -> Result<&str, FrameError> {
    let mut reader = Reader(body);
    let text = reader.text()?;
    reader.end()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 20;

    fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn a_message_is_found_only_when_all_of_it_is_there() {
        let bytes = framed(b'Q', b"select 1\0");
        for cut in 0..bytes.len() {
            assert_eq!(first_frame(&bytes[..cut], LIMIT), Ok(None));
        }
        let frame = first_frame(&bytes, LIMIT).unwrap().unwrap();
        assert_eq!((frame.tag, frame.total()), (b'Q', bytes.len()));
        assert_eq!(only_text(frame.body), Ok("select 1"));
    }

    #[test]
    fn a_length_is_refused_before_the_bytes_arrive() {
        assert_eq!(first_frame(b"Q\0\0\0\x03", LIMIT), Err(FrameError::Length));
        let claimed = FrameError::TooLong { bytes: 0x7fff_ffff, limit: LIMIT };
        assert_eq!(first_frame(b"Q\x7f\xff\xff\xff", LIMIT), Err(claimed));
        assert!(first_frame(b"Q\xff\xff\xff\xff", LIMIT).is_err());
    }

    #[test]
    fn a_bind_is_read_in_place() {
        let mut body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x04".to_vec();
        body.extend_from_slice(&7_i32.to_be_bytes());
        body.extend_from_slice(b"\xff\xff\xff\xff\0\x02\0\0\0\x01");
        let bind = BindView::read(&body).unwrap();
        assert_eq!((bind.portal, bind.statement, bind.parameter_count), ("p", "s", 2));
        assert_eq!(bind.formats.of(1), Format::Binary, "one code counts for all");
        let mut values = bind.parameters;
        assert_eq!(values.value(), Ok(Some(&7_i32.to_be_bytes()[..])));
        assert_eq!(values.value(), Ok(None));
        assert_eq!(bind.result_formats.of(0), Format::Text);
        assert_eq!(bind.result_formats.of(1), Format::Binary);
    }

    #[test]
    fn counts_that_lie_are_errors() {
        assert_eq!(BindView::read(b"\0\0\xff\xff").unwrap_err(), FrameError::Body);
        assert_eq!(BindView::read(b"\0\0\0\0\xff\xff\0\0").unwrap_err(), FrameError::Body);
        assert_eq!(ParseView::read(b"\0select 1\0\0\x05").unwrap_err(), FrameError::Body);
        assert_eq!(Target::read(b"Xname\0").unwrap_err(), FrameError::Body);
        assert_eq!(only_text(b"no end").unwrap_err(), FrameError::Body);
        assert_eq!(only_text(b"\xff\xfe\0").unwrap_err(), FrameError::Utf8);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(frame)) = first_frame(&bytes, LIMIT) {
                prop_assert!(frame.total() <= bytes.len());
            }
            let _ = ParseView::read(&bytes).map(|parse| parse.types().count());
            let _ = Target::read(&bytes);
            let _ = ExecuteView::read(&bytes);
            let _ = only_text(&bytes);
            if let Ok(bind) = BindView::read(&bytes) {
                let mut values = bind.parameters;
                for column in 0..bind.parameter_count {
                    prop_assert!(values.value().is_ok());
                    let _ = (bind.formats.of(column), bind.result_formats.of(column));
                }
            }
        }

        #[test]
        fn a_stream_cut_anywhere_gives_the_same_messages(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(b'd', body)).collect();
            let cut = cut.index(stream.len());
            let (mut seen, mut at, mut end) = (Vec::new(), 0, cut);
            loop {
                match first_frame(&stream[at..end], LIMIT).unwrap() {
                    Some(frame) => { seen.push(frame.body.to_vec()); at += frame.total(); }
                    None if end < stream.len() => end = stream.len(),
                    None => break,
                }
            }
            prop_assert_eq!(seen, bodies);
        }
    }
}
