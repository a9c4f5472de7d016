//! What happens to the guest's containers: taken from the guest, made durable here, acknowledged there.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tonic::Status;

use super::relay::Relay;
use crate::api::pod::v0 as api;
use crate::api::pod::v0::pod_service_client::PodServiceClient;
use crate::io::timestamp::now_ns;
use crate::pod::exits::Exits;
use crate::pod::journal::{Exit, Journal, Kind, Phase, View};
use crate::rpc::is_container_id;

/// Containers that a guest may have at once.
const MAX_CONTAINERS: usize = 1024;
/// Events of the guest that the daemon has not acknowledged: more are left in the guest.
const MAX_PENDING: usize = 4096;
/// One event.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
/// Before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows one guest. Cheap to clone.
#[derive(Clone)]
pub struct Events {
    journal: Journal,
    exits: Arc<Exits>,
    /// When the guest first answered; 0: not yet.
    ready_at_ns: Arc<AtomicI64>,
}

impl Events {
    pub fn new(journal: Journal, exits: Exits) -> Self {
        Self { journal, exits: Arc::new(exits), ready_at_ns: Arc::default() }
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// 0 until the guest has answered.
    pub fn ready_at_ns(&self) -> i64 {
        self.ready_at_ns.load(Ordering::Relaxed)
    }

    /// Follows the guest's events for as long as the VM lives.
    pub async fn follow(self, relay: Relay) {
        let mut guest = PodServiceClient::new(relay.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let mut through = 0;
        loop {
            match self.stream(&mut guest, &mut through).await {
                Err(status) => tracing::debug!(error = status.message(), "the stream of the guest's events broke"),
                Ok(()) => tracing::warn!("the guest ended the stream of its events"),
            }
            if tokio::time::timeout(PAUSE, relay.over()).await.is_ok() {
                return;
            }
        }
    }

    async fn stream(&self, guest: &mut PodServiceClient<Relay>, through: &mut u64) -> Result<(), Status> {
        let mut events = guest.events(api::EventsRequest { after: *through }).await?.into_inner();
        // Failing: it was set before.
        if self.ready_at_ns.compare_exchange(0, now_ns(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::info!("the guest answers");
        }
        loop {
            self.journal.room(MAX_PENDING).await;
            let Some(event) = events.message().await? else { return Ok(()) };
            if event.number != *through + 1 {
                return Err(Status::data_loss(format!("event {} follows event {through}", event.number)));
            }
            *through = event.number;
            match checked(event) {
                Some((kind, view)) => self.record(kind, view),
                None => tracing::warn!(number = *through, "an event of the guest makes no sense and was dropped"),
            }
            guest.acknowledge_events(api::AcknowledgeEventsRequest { through: *through }).await?;
        }
    }

    fn record(&self, kind: Kind, view: View) {
        let (views, _) = self.journal.snapshot();
        let known = views.iter().find(|known| known.id == view.id);
        if known.is_none() && views.len() >= MAX_CONTAINERS {
            tracing::warn!(most = MAX_CONTAINERS, "the guest has too many containers: one is not recorded");
            return;
        }
        match (kind, view.exit) {
            (Kind::Exited, Some(exit)) => {
                if let Err(error) = self.exits.write(&view.id, exit) {
                    tracing::error!(%error, "an exit is not on disk");
                }
            }
            (Kind::Deleted, _) => self.exits.remove(&view.id),
            _ => {}
        }
        self.journal.publish(kind, view);
    }

    /// The VM is gone, and what ran in it. Returns those that this ended.
    pub fn end_all(&self, code: i32, oom_killed: bool) -> Vec<(String, Exit)> {
        let exit = Exit { code, oom_killed, finished_at_ns: now_ns() };
        let (views, _) = self.journal.snapshot();
        let living = views.into_iter().filter(|view| matches!(view.phase, Phase::Created | Phase::Running));
        living
            .map(|view| {
                let id = view.id.clone();
                self.record(Kind::Exited, View { phase: Phase::Exited, pid: 0, exit: Some(exit), ..view });
                (id, exit)
            })
            .collect()
    }
}

/// An event as we keep it, when it says what an event can say.
fn checked(event: api::Event) -> Option<(Kind, View)> {
    let kind = match event.kind() {
        api::EventKind::Created => Kind::Created,
        api::EventKind::Started => Kind::Started,
        api::EventKind::Exited => Kind::Exited,
        api::EventKind::Deleted => Kind::Deleted,
        api::EventKind::Unspecified => return None,
    };
    let container = event.container?;
    let phase = match container.state() {
        api::ContainerState::Prepared => Phase::Prepared,
        api::ContainerState::Created => Phase::Created,
        api::ContainerState::Running => Phase::Running,
        api::ContainerState::Exited => Phase::Exited,
        api::ContainerState::Unspecified => return None,
    };
    let exit = container.exit.map(|exit| Exit { code: exit.code, oom_killed: exit.oom_killed, finished_at_ns: exit.finished_at_ns });
    if !is_container_id(&container.container_id) || (kind == Kind::Exited) != (phase == Phase::Exited) && kind != Kind::Deleted {
        return None;
    }
    if phase == Phase::Exited && exit.is_none() {
        return None;
    }
    let view = View {
        id: container.container_id,
        phase,
        pid: container.pid,
        created_at_ns: container.created_at_ns,
        started_at_ns: container.started_at_ns,
        exit,
    };
    Some((kind, view))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, kind: api::EventKind, state: api::ContainerState, exit: Option<api::Exit>) -> api::Event {
        let container = api::Container { container_id: id.to_owned(), state: state.into(), exit, ..Default::default() };
        api::Event { number: 1, timestamp_ns: 1, container: Some(container), kind: kind.into() }
    }

    #[test]
    fn nonsense_is_dropped() {
        use api::{ContainerState as State, EventKind as Kind};
        let exit = Some(api::Exit { code: 3, ..Default::default() });
        assert!(checked(event("c", Kind::Created, State::Created, None)).is_some());
        assert!(checked(event("c", Kind::Exited, State::Exited, exit)).is_some());
        assert!(checked(event("c", Kind::Deleted, State::Exited, exit)).is_some());
        assert!(checked(event("c", Kind::Deleted, State::Created, None)).is_some());
        assert!(checked(event("../c", Kind::Created, State::Created, None)).is_none());
        assert!(checked(event("c", Kind::Unspecified, State::Created, None)).is_none());
        assert!(checked(event("c", Kind::Created, State::Unspecified, None)).is_none());
        assert!(checked(event("c", Kind::Exited, State::Exited, None)).is_none());
        assert!(checked(event("c", Kind::Exited, State::Running, exit)).is_none());
        assert!(checked(event("c", Kind::Started, State::Exited, exit)).is_none());
        assert!(checked(api::Event { container: None, ..event("c", Kind::Created, State::Created, None) }).is_none());
    }

    #[test]
    fn the_end_of_the_vm_is_the_end_of_what_ran() {
        let dir = tempfile::tempdir().unwrap();
        let events = Events::new(Journal::default(), Exits::open(dir.path()).unwrap());
        let exit = Some(api::Exit { code: 3, ..Default::default() });
        for event in [
            event("running", api::EventKind::Started, api::ContainerState::Running, None),
            event("ended", api::EventKind::Exited, api::ContainerState::Exited, exit),
        ] {
            let (kind, view) = checked(event).unwrap();
            events.record(kind, view);
        }
        let ended = events.end_all(255, true);
        assert_eq!(ended.iter().map(|(id, exit)| (id.as_str(), exit.code, exit.oom_killed)).collect::<Vec<_>>(), [("running", 255, true)]);
        assert!(std::fs::read_to_string(dir.path().join("exits/running.json")).unwrap().contains("\"code\":255"));
        assert!(std::fs::read_to_string(dir.path().join("exits/ended.json")).unwrap().contains("\"code\":3"));
        assert_eq!(events.journal().after(2).len(), 1);
        assert!(events.end_all(255, false).is_empty());
    }
}
