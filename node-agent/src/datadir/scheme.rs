//! `scheme`: what the pair promises and who decides, as the operator said it last (A1.20). A process that
//! starts goes by it, and not by what its pod was made with.

use super::{DataDir, DataDirError, failed, sync_directory};
use std::{
    fs::{self, File},
    io::{self, Write},
};
use understudy_agent_api::Scheme;

const NAME: &str = "scheme";
const NEXT: &str = "scheme.next";

impl DataDir {
    /// Keeps it in the place of an earlier one, durably: from then on it may be acted on.
    ///
    /// # Errors
    /// When the volume does not take it; the earlier one is kept.
    pub fn keep_scheme(&self, scheme: &Scheme) -> Result<(), DataDirError> {
        let text = serde_json::to_vec(scheme).map_err(io::Error::other);
        let (path, next) = (self.data.join(NAME), self.data.join(NEXT));
        let write = || -> io::Result<()> {
            let mut file = File::create(&next)?;
            file.write_all(&text?)?;
            file.sync_all()?;
            fs::rename(&next, &path)
        };
        write().map_err(failed("write", &path))?;
        sync_directory(&self.data)
    }

    /// The last one that was kept. One that cannot be read is none: the operator says it again.
    #[must_use]
    pub fn kept_scheme(&self) -> Option<Scheme> {
        let path = self.data.join(NAME);
        let text = fs::read(&path).ok()?;
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(error = %error, path = %path.display(), "the scheme cannot be read"))
            .ok()
    }
}
