//! One line in the log for each call, when it is answered: method, request id, container, outcome, duration.
//!
//! At info what changes the pod or opens a session, so the file grows with what is done to the pod and not with its age.
//! At debug what is polled or comes from probes, for as long as the pod lives: state, statistics, ExecSync. A stream is
//! answered when it opens; what ends it later is logged where that happens.

use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http;
use tracing::Level;

/// Sent by the caller to find its own request in our log again.
const REQUEST_ID: &str = "x-request-id";
const WORD_MAX_BYTES: usize = 64;
/// Called again and again without anybody having done something to the pod.
const REPEATED: [&str; 6] = ["Hello", "ListContainers", "Stats", "AcknowledgeEvents", "Events", "ExecSync"];

tokio::task_local! {
    static DETAILS: Arc<Mutex<Details>>;
}

/// What only the code that serves the call comes to know.
#[derive(Default)]
struct Details {
    container_id: Option<String>,
    error: Option<String>,
}

/// A call under way. Dropped without an answer, it says that the caller went away.
pub struct Call {
    level: Level,
    method: String,
    request_id: String,
    began: Instant,
    details: Arc<Mutex<Details>>,
    outcome: Code,
}

/// Names the container the current call is about.
pub fn about_container(id: &str) {
    with_details(|details| details.container_id = Some(id.to_owned()));
}

/// Keeps why the current call fails for its line. False outside of a call that is logged.
pub fn failed_with(error: &impl ToString) -> bool {
    with_details(|details| details.error = Some(error.to_string()))
}

fn with_details(change: impl FnOnce(&mut Details)) -> bool {
    DETAILS.try_with(|details| change(&mut details.lock().unwrap_or_else(PoisonError::into_inner))).is_ok()
}

/// What a caller sent, fit for a line of the log.
fn plain(text: &str) -> String {
    text.chars().filter(|character| character.is_ascii_graphic()).take(WORD_MAX_BYTES).collect()
}

impl Call {
    /// None when its line would not be written: what is polled then costs a few comparisons.
    pub fn begin(request: &http::Request<Body>) -> Option<Self> {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let level = if REPEATED.contains(&method) { Level::DEBUG } else { Level::INFO };
        if level == Level::DEBUG && !tracing::enabled!(Level::DEBUG) {
            return None;
        }
        let request_id = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).map(plain);
        Some(Self {
            level,
            method: plain(method),
            request_id: request_id.unwrap_or_default(),
            began: Instant::now(),
            details: Arc::default(),
            outcome: Code::Cancelled,
        })
    }

    /// Waits for the answer, which the line then tells.
    pub async fn answer<F>(mut self, serve: F) -> Result<http::Response<Body>, Infallible>
    where
        F: Future<Output = Result<http::Response<Body>, Infallible>>,
    {
        let response = DETAILS.scope(self.details.clone(), serve).await?;
        // Only a refusal has its status here: that of success comes after the body.
        self.outcome = response.headers().get("grpc-status").map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
        Ok(response)
    }

    fn line(&self) -> String {
        let Self { method, outcome, .. } = self;
        let mut line = format!("call method={method} outcome={outcome:?} duration_ms={}", self.began.elapsed().as_millis());
        let details = self.details.lock().unwrap_or_else(PoisonError::into_inner);
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                line.push_str(&format!(" {name}={value}"));
            }
        };
        add("request_id", &self.request_id);
        add("container_id", details.container_id.as_deref().unwrap_or_default());
        // Quoted: a text of several words, perhaps of several lines.
        add("error", &details.error.as_ref().map(|error| format!("{error:?}")).unwrap_or_default());
        line
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let line = self.line();
        match (self.outcome, self.level) {
            (Code::Internal, _) => tracing::error!("{line}"),
            (_, Level::INFO) => tracing::info!("{line}"),
            _ => tracing::debug!("{line}"),
        }
    }
}
