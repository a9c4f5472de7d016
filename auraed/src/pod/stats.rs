//! Samples of containers and of the pod.

use super::Pod;
use super::container::{Live, Request};
use super::journal::Phase;
use super::network::{self, Interface};
use super::processes::{self, Descriptors};
use super::usage::{Layer, layer};
use crate::cgroup::container::ContainerCgroup;
use crate::cgroup::detail::{self, Detail};
use crate::cgroup::stats::{Sample, sample};
use crate::io::timestamp::now_ns;

pub struct ContainerSample {
    pub id: String,
    pub timestamp_ns: i64,
    pub sample: Sample,
    pub writable_layer: Layer,
    pub detail: Option<Detailed>,
}

#[derive(Default)]
pub struct PodSample {
    pub timestamp_ns: i64,
    pub sample: Sample,
    pub interfaces: Vec<Interface>,
    pub detail: Option<Detailed>,
}

/// What takes a look at every process.
pub struct Detailed {
    pub cgroup: Detail,
    pub descriptors: Descriptors,
    /// Of a container's first process.
    pub open_file_limit: Option<u64>,
}

/// Of the named containers, or of all when none is named; one without a process is left out, for it must not fail the others.
pub async fn containers(pod: &Pod, mut ids: Vec<String>, detailed: bool) -> Vec<ContainerSample> {
    if ids.is_empty() {
        let live = |phase| matches!(phase, Phase::Created | Phase::Running);
        ids = pod.journal().snapshot().0.into_iter().filter(|view| live(view.phase)).map(|view| view.id).collect();
    }
    let mut samples = Vec::new();
    for id in ids {
        if let Ok(live) = pod.ask(&id, Request::Live).await {
            samples.push(of_container(live, detailed).await);
        }
    }
    samples
}

async fn of_container(live: Live, detailed: bool) -> ContainerSample {
    let writable_layer = layer(&live.usage, live.upper).await;
    let detail = if detailed { look(live.cgroup.clone(), Some(live.pid)).await } else { None };
    ContainerSample { id: live.id, timestamp_ns: now_ns(), sample: sample(&live.cgroup), writable_layer, detail }
}

/// Of the pod's own cgroup and network namespace. On the host's network no interface is the pod's.
pub async fn of_pod(pod: &Pod, detailed: bool) -> PodSample {
    let place = pod.place();
    let interfaces = match place.network {
        Some(namespace) => network::interfaces(namespace).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the pod's interfaces could not be read");
            Vec::new()
        }),
        None => Vec::new(),
    };
    let detail = match &place.cgroup {
        Some(cgroup) if detailed => look(cgroup.clone(), None).await,
        _ => None,
    };
    PodSample { timestamp_ns: now_ns(), sample: place.cgroup.as_ref().map(sample).unwrap_or_default(), interfaces, detail }
}

/// In a thread: a container may hold any number of descriptors.
async fn look(cgroup: ContainerCgroup, first: Option<i32>) -> Option<Detailed> {
    let work = move || Detailed {
        cgroup: detail::detail(&cgroup),
        descriptors: processes::descriptors(&cgroup.pids()),
        open_file_limit: first.and_then(processes::open_file_limit),
    };
    tokio::task::spawn_blocking(work).await.ok()
}
