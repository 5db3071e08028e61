//! Panics of a task that answers one frame, so that they are that frame's failure.

use std::{
    any::Any,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
};

/// The output of a future, or the text of the panic that ended it.
///
/// # Errors
/// The text of the panic.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let mut future = pin!(future);
    // A future that panicked is not polled again.
    let polled = poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(text(&*panic))),
    });
    polled.await
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::admission::PermitCount;

    #[tokio::test]
    async fn a_panic_is_a_value_and_frees_what_the_task_held() {
        let permits = PermitCount::default();
        let permit = permits.acquire();
        let failing = async move {
            let _permit = permit;
            tokio::task::yield_now().await;
            panic_with(7)
        };
        assert_eq!(caught(failing).await, Err("frame 7".to_owned()));
        assert_eq!(permits.in_use(), 0);
        assert_eq!(caught(async { 3 }).await, Ok(3));
    }

    fn panic_with(frame: u64) {
        panic!("frame {frame}");
    }
}
