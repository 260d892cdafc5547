//! This member as the receiver of a duplicate: its own store is replaced by what a feeder streams.

use crate::{
    datadir::{ControlFile, DataDir},
    duplicate::{Receiver, Transferred},
    node::Node,
    peer::LinkTls,
};
use std::sync::Arc;
use understudy_agent_api::Progress;
use understudy_replication::FollowerKind;
use understudy_types::Incarnation;

impl Receiver for Node {
    fn tls(&self) -> &dyn LinkTls {
        self.tls.as_ref()
    }

    fn data_dir(&self) -> Arc<DataDir> {
        Arc::clone(&self.volumes)
    }

    fn control(&self) -> ControlFile {
        self.engine.control_file()
    }

    fn incarnation(&self) -> Incarnation {
        self.engine.with_section(|s| s.member.me().incarnation)
    }

    fn kind(&self) -> FollowerKind {
        self.kind
    }

    fn transferred(&self, progress: Transferred) {
        self.set_progress(Some(Progress {
            step: "receiving a duplicate".into(),
            done_bytes: progress.received_bytes,
            total_bytes: progress.total_bytes,
        }));
    }
}
