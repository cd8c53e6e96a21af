//! `/events`: the page's changing part, each second, as server-sent events.

use super::super::Source;
use super::body;
use bytes::Bytes;
use http_body_util::channel::Channel;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Pages that are open at once. One more is told to come later.
const PAGES: usize = 64;

/// Between two renderings.
const PERIOD: Duration = Duration::from_secs(1);

/// Whoever reads nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// One rendering for all who look.
#[derive(Debug)]
pub(crate) struct Feed {
    free: Arc<Semaphore>,
    last: Mutex<Option<(Instant, Bytes)>>,
}

impl Default for Feed {
    fn default() -> Self {
        Feed { free: Arc::new(Semaphore::new(PAGES)), last: Mutex::default() }
    }
}

impl Feed {
    /// The events for one more page, until it is closed; `None`: there are too many.
    pub(crate) fn open(self: &Arc<Self>, source: &Arc<dyn Source>) -> Option<Channel<Bytes, Infallible>> {
        let place = self.free.clone().try_acquire_owned().ok()?;
        let (mut sender, events) = Channel::new(1);
        let (feed, source) = (self.clone(), source.clone());
        tokio::spawn(async move {
            let _place = place;
            // Fails once the page is closed.
            while let Ok(Ok(())) = timeout(PATIENCE, sender.send_data(feed.event(&*source))).await {
                sleep(PERIOD).await;
            }
        });
        Some(events)
    }

    /// The present as an event. Lines of it would be lines of the event, so there are none.
    fn event(&self, source: &dyn Source) -> Bytes {
        let now = crate::clock::now();
        let mut last = self.last.lock();
        if let Some((_, event)) = last.as_ref().filter(|(at, _)| now.saturating_duration_since(*at) < PERIOD / 2) {
            return event.clone();
        }
        let html = body(&source.status(), &source.history().lock(), None).into_string();
        let event = Bytes::from(format!("data: {}\n\n", html.replace(['\n', '\r'], " ")));
        *last = Some((now, event.clone()));
        event
    }
}
