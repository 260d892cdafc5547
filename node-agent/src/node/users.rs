//! The two users of a pair, from the mounted Secrets: made by the active when it serves, and altered
//! when a Secret changes. Only verifiers enter the log, never a password.

use crate::{
    node::Node,
    pg::{
        Database,
        auth::{make_verifier, password_matches},
    },
};
use anyhow::Context;
use std::{path::Path, sync::Arc, time::Duration};
use understudy_store::{Isolation, UserDef};
use understudy_types::Role;

/// How often the Secrets are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How often after a failure, and until the first success.
const LOOK_SOON: Duration = Duration::from_millis(200);

/// Keeps the users as the Secrets say, while this member is the active.
pub(crate) async fn keep(node: Arc<Node>) {
    let mut role = node.engine.role();
    loop {
        let is_active = role.borrow_and_update().0 == Role::Active;
        let mut pause = LOOK;
        if is_active {
            for (dir, admin) in [(&node.config.admin_dir, true), (&node.config.app_dir, false)] {
                if let Err(error) = apply(&node, dir, admin).await {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "a user was not brought up to date"
                    );
                    pause = LOOK_SOON;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = role.changed() => {}
        }
    }
}

async fn apply(node: &Node, dir: &Path, admin: bool) -> anyhow::Result<()> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (name, password) = (read("username")?, read("password")?);
    let name = name.trim_end().to_owned();
    let password = password.trim_end_matches('\n');
    let store = node.engine.store();
    let catalog = store.catalog();
    let known = catalog.user(&name);
    let is_current = known.is_some_and(|u| {
        u.admin == admin && u.scram.as_deref().is_some_and(|v| password_matches(v, password))
    });
    if is_current {
        return Ok(());
    }
    let user = UserDef { name, scram: Some(make_verifier(password)), admin };
    let mut txn = store.begin(Isolation::ReadCommitted);
    let done = if known.is_some() {
        store.alter_user(&mut txn, user)
    } else {
        store.create_user(&mut txn, user)
    };
    if let Err(error) = done {
        store.rollback(txn);
        anyhow::bail!("{error:?}");
    }
    let lsn = node.engine.commit(txn).map_err(|e| anyhow::anyhow!("{e}"))?;
    node.engine.acknowledged(lsn).await.map_err(|e| anyhow::anyhow!("{e}"))?;
    tracing::info!(admin, "a user was brought up to date from its Secret");
    Ok(())
}
