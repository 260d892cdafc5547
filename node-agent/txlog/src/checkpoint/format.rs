//! The bytes of a checkpoint file, written and read front to back without a disk.

use super::CheckpointMeta;
use std::io::{self, Read, Write};
use understudy_types::Lsn;

/// Body bytes of a full block.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Longest description, in bytes: histories are short, so more is damage.
const META_BYTES_MAX: u32 = 1 << 20;

const MAGIC: [u8; 8] = *b"UNDERCKP";
const END_MAGIC: [u8; 4] = *b"UEND";
const FORMAT_VERSION: u32 = 1;
const FOOTER_BYTES: usize = 36;

/// What is wrong with a checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DamagedCheckpoint {
    /// Another kind of file.
    #[error("it does not begin with the magic of a checkpoint")]
    Magic,
    /// Written by another version of the format.
    #[error("format version {0} is not supported; this release reads version {FORMAT_VERSION}")]
    Version(u32),
    /// The description cannot be read.
    #[error("its header is damaged")]
    Header,
    /// A block has changed, or stands at another place than it was written for.
    #[error("block {number} at byte {offset} is damaged")]
    Block {
        /// Number of the block, from zero.
        number: u64,
        /// Where it begins in the file, in bytes.
        offset: u64,
    },
    /// The footer does not fit the blocks before it.
    #[error("the footer at byte {0} does not fit the blocks before it")]
    Footer(u64),
    /// The file ends before its footer.
    #[error("it ends at byte {0}, before its footer")]
    Truncated(u64),
    /// There is something behind the footer.
    #[error("{0} bytes follow the footer")]
    TrailingBytes(u64),
    /// The file carries the name of another checkpoint.
    #[error("it says that it is the checkpoint at {0}")]
    Name(Lsn),
}

impl From<DamagedCheckpoint> for io::Error {
    fn from(damage: DamagedCheckpoint) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }
}

/// First part of the file.
pub(super) struct Head {
    pub(super) meta: CheckpointMeta,
}

impl Head {
    fn encode(&self) -> io::Result<Vec<u8>> {
        let meta = postcard::to_stdvec(&self.meta).map_err(io::Error::other)?;
        let length = u32::try_from(meta.len()).ok().filter(|n| *n <= META_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("the epoch history is too long"))?;
        let mut out = Vec::with_capacity(meta.len() + 20);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&meta);
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        Ok(out)
    }

    /// Reads the head; also says how long it is.
    fn read(input: &mut impl Read) -> io::Result<(Head, u64)> {
        let mut fixed = [0; 16];
        read_all(input, &mut fixed, 0)?;
        if fixed[..8] != MAGIC {
            return Err(DamagedCheckpoint::Magic.into());
        }
        let version = u32_at(&fixed, 8);
        if version != FORMAT_VERSION {
            return Err(DamagedCheckpoint::Version(version).into());
        }
        let length = u32_at(&fixed, 12);
        if length > META_BYTES_MAX {
            return Err(DamagedCheckpoint::Header.into());
        }
        let mut rest = vec![0; length as usize + 4];
        read_all(input, &mut rest, 16)?;
        let (meta, checksum) = rest.split_at(length as usize);
        if crc32c::crc32c_append(crc32c::crc32c(&fixed), meta).to_le_bytes() != *checksum {
            return Err(DamagedCheckpoint::Header.into());
        }
        let meta = postcard::from_bytes(meta).map_err(|_| DamagedCheckpoint::Header)?;
        Ok((Head { meta }, 16 + rest.len() as u64))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes make a u32"))
}

/// Fills `buf`, or says where the file ended.
fn read_all(input: &mut impl Read, buf: &mut [u8], offset: u64) -> io::Result<()> {
    match input.read_exact(buf) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(DamagedCheckpoint::Truncated(offset).into())
        }
        Err(e) => Err(e),
    }
}

fn block_checksum(number: u64, length: [u8; 4], bytes: &[u8]) -> u32 {
    let checksum = crc32c::crc32c(&number.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(checksum, &length), bytes)
}

/// What the footer counts.
#[derive(Default)]
struct Totals {
    blocks: u64,
    body_bytes: u64,
    hash: xxhash_rust::xxh3::Xxh3,
}

impl Totals {
    fn add(&mut self, bytes: &[u8]) {
        self.blocks += 1;
        self.body_bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn footer(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[..8].copy_from_slice(&self.blocks.to_le_bytes());
        out[8..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[16..32].copy_from_slice(&self.hash.digest128().to_le_bytes());
        out[32..].copy_from_slice(&END_MAGIC);
        out
    }
}

/// Cuts a body into blocks.
pub(super) struct BlockWriter<W: Write> {
    out: W,
    block: Vec<u8>,
    totals: Totals,
}

impl<W: Write> BlockWriter<W> {
    pub(super) fn new(mut out: W, head: &Head) -> io::Result<BlockWriter<W>> {
        out.write_all(&head.encode()?)?;
        Ok(BlockWriter {
            out,
            block: Vec::with_capacity(BLOCK_BYTES + 8),
            totals: Totals::default(),
        })
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        // Fits: a block has at most 64 KiB.
        let length = (self.block.len() as u32).to_le_bytes();
        let checksum = block_checksum(self.totals.blocks, length, &self.block);
        self.totals.add(&self.block);
        self.out.write_all(&length)?;
        self.out.write_all(&checksum.to_le_bytes())?;
        self.out.write_all(&self.block)?;
        self.block.clear();
        Ok(())
    }

    /// Writes the footer and returns the output.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.end_block()?;
        let footer = self.totals.footer();
        self.out.write_all(&0u32.to_le_bytes())?;
        self.out.write_all(&crc32c::crc32c(&footer).to_le_bytes())?;
        self.out.write_all(&footer)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&buf[..n]);
        if self.block.len() == BLOCK_BYTES {
            self.end_block()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Blocks end by size only, so that equal bodies make equal files.
        Ok(())
    }
}

/// Reads the body of a checkpoint and checks it on the way. Damage is an `InvalidData` error that
/// carries a [`DamagedCheckpoint`]; the end is reported only after the footer has been checked.
pub struct CheckpointReader<R> {
    input: R,
    block: Vec<u8>,
    at: usize,
    offset: u64,
    totals: Totals,
    finished: bool,
}

impl<R: Read> CheckpointReader<R> {
    /// Reads the head of a checkpoint file.
    ///
    /// # Errors
    /// When the input fails or does not begin with the head of a checkpoint.
    pub fn new(mut input: R) -> io::Result<(CheckpointMeta, CheckpointReader<R>)> {
        let (head, offset) = Head::read(&mut input)?;
        let (block, totals) = (Vec::with_capacity(BLOCK_BYTES), Totals::default());
        Ok((head.meta, CheckpointReader { input, block, at: 0, offset, totals, finished: false }))
    }

    /// Bytes of the file up to here.
    pub(super) fn file_bytes(&self) -> u64 {
        self.offset
    }

    fn next_block(&mut self) -> io::Result<()> {
        let (number, offset) = (self.totals.blocks, self.offset);
        let mut prefix = [0; 8];
        read_all(&mut self.input, &mut prefix, offset)?;
        let (length, checksum) = (u32_at(&prefix, 0), u32_at(&prefix, 4));
        if length == 0 {
            let mut footer = [0; FOOTER_BYTES];
            read_all(&mut self.input, &mut footer, offset + 8)?;
            if crc32c::crc32c(&footer) != checksum || footer != self.totals.footer() {
                return Err(DamagedCheckpoint::Footer(offset).into());
            }
            self.offset += (prefix.len() + FOOTER_BYTES) as u64;
            self.finished = true;
            return Ok(());
        }
        if length as usize > BLOCK_BYTES {
            return Err(DamagedCheckpoint::Block { number, offset }.into());
        }
        self.block.resize(length as usize, 0);
        read_all(&mut self.input, &mut self.block, offset + 8)?;
        if block_checksum(number, length.to_le_bytes(), &self.block) != checksum {
            return Err(DamagedCheckpoint::Block { number, offset }.into());
        }
        self.totals.add(&self.block);
        self.offset += (prefix.len() + self.block.len()) as u64;
        self.at = 0;
        Ok(())
    }
}

impl<R: Read> Read for CheckpointReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.block.len() && !self.finished {
            self.block.clear();
            self.at = 0;
            self.next_block()?;
        }
        let n = buf.len().min(self.block.len() - self.at);
        buf[..n].copy_from_slice(&self.block[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Checks the bytes of a checkpoint file as they come in, without keeping them.
pub(super) struct Checker {
    /// Bytes of the piece that is not whole yet.
    pending: Vec<u8>,
    offset: u64,
    totals: Totals,
    meta: Option<CheckpointMeta>,
    finished: bool,
}

impl Checker {
    pub(super) fn new() -> Checker {
        let (pending, totals) = (Vec::new(), Totals::default());
        Checker { pending, offset: 0, totals, meta: None, finished: false }
    }

    /// The description, once it has arrived.
    pub(super) fn meta(&self) -> Option<&CheckpointMeta> {
        self.meta.as_ref()
    }

    /// Whether the footer has been checked.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Bytes seen up to the end of the last whole piece.
    pub(super) fn checked_bytes(&self) -> u64 {
        self.offset
    }

    /// Forgets the piece that is not whole, and damage found in it.
    pub(super) fn drop_pending(&mut self) {
        self.pending.clear();
    }

    /// Takes the next bytes of the file.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), DamagedCheckpoint> {
        self.pending.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(used) = self.piece(at)? {
            at += used;
            self.offset += used as u64;
        }
        self.pending.drain(..at);
        if self.finished && !self.pending.is_empty() {
            return Err(DamagedCheckpoint::TrailingBytes(self.pending.len() as u64));
        }
        Ok(())
    }

    /// Checks the piece that begins at `at` of what is pending; `None` until it is whole.
    fn piece(&mut self, at: usize) -> Result<Option<usize>, DamagedCheckpoint> {
        let rest = &self.pending[at..];
        if self.finished {
            return Ok(None);
        }
        if self.meta.is_none() {
            return self.head(at);
        }
        if rest.len() < 8 {
            return Ok(None);
        }
        let (length, checksum) = (u32_at(rest, 0), u32_at(rest, 4));
        let (number, offset) = (self.totals.blocks, self.offset);
        let body = if length == 0 { FOOTER_BYTES } else { length as usize };
        if body > BLOCK_BYTES {
            return Err(DamagedCheckpoint::Block { number, offset });
        }
        let Some(bytes) = rest.get(8..8 + body) else { return Ok(None) };
        if length == 0 {
            if crc32c::crc32c(bytes) != checksum || *bytes != self.totals.footer() {
                return Err(DamagedCheckpoint::Footer(offset));
            }
            self.finished = true;
        } else {
            if block_checksum(number, length.to_le_bytes(), bytes) != checksum {
                return Err(DamagedCheckpoint::Block { number, offset });
            }
            self.totals.add(bytes);
        }
        Ok(Some(8 + body))
    }

    fn head(&mut self, at: usize) -> Result<Option<usize>, DamagedCheckpoint> {
        let mut rest = &self.pending[at..];
        if rest.len() < 16 {
            return Ok(None);
        }
        // The length is checked by `Head::read` before it is believed; here it only bounds the wait.
        if u32_at(rest, 12).min(META_BYTES_MAX) as usize + 20 > rest.len() && rest[..8] == MAGIC {
            return Ok(None);
        }
        match Head::read(&mut rest) {
            Ok((head, used)) => {
                self.meta = Some(head.meta);
                // Fits: the head is bounded by the longest description.
                Ok(Some(used as usize))
            }
            Err(e) => Err(e.downcast().unwrap_or(DamagedCheckpoint::Header)),
        }
    }
}
