//! The two users of a pair, from the mounted Secrets: made by the active when it serves, and altered
//! when a Secret changes. Only verifiers enter the log, never a password.

use crate::{
    engine::Engine,
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
    if bring_up_to_date(&node.engine, name, Some(password), admin).await? {
        tracing::info!(admin, "a user was brought up to date from its Secret");
    }
    Ok(())
}

/// Makes or alters a user, so that it is what was asked for; without a password it keeps the one it has.
/// Returns whether anything had to be done, durably.
pub(crate) async fn bring_up_to_date(
    engine: &Engine,
    name: String,
    password: Option<&str>,
    admin: bool,
) -> anyhow::Result<bool> {
    let store = engine.store();
    let catalog = store.catalog();
    let known = catalog.user(&name);
    let verifier = known.and_then(|user| user.scram.clone());
    let scram = match password {
        Some(password) if !verifier.as_deref().is_some_and(|v| password_matches(v, password)) => {
            Some(make_verifier(password))
        }
        Some(_) | None => verifier,
    };
    let user = UserDef { name, scram, admin };
    if known.is_some_and(|known| known.admin == admin && known.scram == user.scram) {
        return Ok(false);
    }
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
    let lsn = engine.commit(txn).map_err(|e| anyhow::anyhow!("{e}"))?;
    engine.acknowledged(lsn).await.map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(true)
}
