//! `scheme`: what the pair promises and who decides, as the operator said it last (A1.20). A process that
//! starts goes by it, and not by what its pod was made with.

use super::{DataDir, DataDirError, failed, put_in_place, write_whole};
use std::{fs, io};
use understudy_agent_api::Scheme;

const NAME: &str = "scheme";
const NEXT: &str = "scheme.next";

impl DataDir {
    /// Keeps it in the place of an earlier one, durably: from then on it may be acted on.
    ///
    /// # Errors
    /// When the volume does not take it; the earlier one is kept.
    pub fn keep_scheme(&self, scheme: &Scheme) -> Result<(), DataDirError> {
        let next = self.data.join(NEXT);
        let text = serde_json::to_vec(scheme).map_err(io::Error::other);
        write_whole(&next, &text.map_err(failed("write", &next))?)?;
        put_in_place(&self.data, NEXT, NAME)
    }

    /// The last one that was kept. One that cannot be read is none, and is told: the operator says it again.
    #[must_use]
    pub fn kept_scheme(&self) -> Option<Scheme> {
        let path = self.data.join(NAME);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            read => read.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other)),
        };
        let told = |error: &io::Error| tracing::warn!(error = %error, path = %path.display(), "the kept scheme is of no use");
        read.inspect_err(told).ok()
    }
}
