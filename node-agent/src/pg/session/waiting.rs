//! Waiting without blocking the loop, and what cuts a wait short.

use super::super::registry::{EndReason, Interrupt, SessionControl};
use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// How a wait for input went.
pub(super) enum Waited<T> {
    /// As hoped.
    Done(T),
    /// The session has to end.
    Ended(EndReason),
    /// It took too long.
    TimedOut,
}

/// Waits until done, or until `cut_short` says why not. Being done wins.
async fn unless<F: Future, E>(
    future: F,
    mut cut_short: impl FnMut(&mut Context<'_>) -> Poll<E>,
) -> Result<F::Output, E> {
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => cut_short(context).map(Err),
    })
    .await
}

/// Waits until done, cancelled or ended.
pub(super) fn interruptible<F: Future>(
    control: &SessionControl,
    future: F,
) -> impl Future<Output = Result<F::Output, Interrupt>> {
    unless(future, |context| control.poll_interrupt(context))
}

/// Waits until done or ended; a cancel request waits too.
pub(super) fn unless_ended<F: Future>(
    control: &SessionControl,
    future: F,
) -> impl Future<Output = Result<F::Output, EndReason>> {
    unless(future, |context| control.poll_end(context))
}

/// As [`unless_ended`], with a limit.
pub(super) async fn ended_or<F: Future>(
    control: &SessionControl,
    limit: Option<Duration>,
    future: F,
) -> Waited<F::Output> {
    let watched = unless_ended(control, future);
    let ended = match limit {
        None => watched.await,
        Some(limit) => match tokio::time::timeout(limit, watched).await {
            Ok(ended) => ended,
            Err(_) => return Waited::TimedOut,
        },
    };
    match ended {
        Ok(output) => Waited::Done(output),
        Err(reason) => Waited::Ended(reason),
    }
}

/// As [`interruptible`], with a moment after which it is too late (None).
pub(super) async fn until<F: Future>(
    control: &SessionControl,
    deadline: Option<Instant>,
    future: F,
) -> Result<Option<F::Output>, Interrupt> {
    let Some(deadline) = deadline else {
        return interruptible(control, future).await.map(Some);
    };
    let mut timer = pin!(sleep_until(deadline));
    let in_time = unless(future, |context| timer.as_mut().poll(context));
    interruptible(control, in_time).await.map(Result::ok)
}
