//! Samples of containers and of the pod.

use super::Pod;
use super::container::{Live, Request};
use super::journal::Phase;
use super::network::{self, Interface};
use super::usage::Usage;
use crate::cgroup::stats::{Sample, sample};
use crate::io::timestamp::now_ns;

pub struct ContainerSample {
    pub id: String,
    pub timestamp_ns: i64,
    pub sample: Sample,
    pub writable_layer: Usage,
}

#[derive(Default)]
pub struct PodSample {
    pub timestamp_ns: i64,
    pub sample: Sample,
    pub interfaces: Vec<Interface>,
}

/// Of the named containers, or of all when none is named; one without a process is left out, for it must not fail the others.
pub async fn containers(pod: &Pod, mut ids: Vec<String>) -> Vec<ContainerSample> {
    if ids.is_empty() {
        let live = |phase| matches!(phase, Phase::Created | Phase::Running);
        ids = pod.journal().snapshot().0.into_iter().filter(|view| live(view.phase)).map(|view| view.id).collect();
    }
    let mut samples = Vec::new();
    for id in ids {
        if let Ok(live) = pod.ask(&id, Request::Live).await {
            samples.push(of_container(live).await);
        }
    }
    samples
}

async fn of_container(live: Live) -> ContainerSample {
    let writable_layer = live.usage.get(live.upper).await;
    ContainerSample { id: live.id, timestamp_ns: now_ns(), sample: sample(&live.cgroup), writable_layer }
}

/// Of the pod's own cgroup and network namespace. On the host's network no interface is the pod's.
pub async fn of_pod(pod: &Pod) -> PodSample {
    let place = pod.place();
    let interfaces = match place.network {
        Some(namespace) => network::interfaces(namespace).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the pod's interfaces could not be read");
            Vec::new()
        }),
        None => Vec::new(),
    };
    PodSample { timestamp_ns: now_ns(), sample: place.cgroup.as_ref().map(sample).unwrap_or_default(), interfaces }
}
