//! What makes a booted guest the pod's: a task that owns the sandbox and the layers. A caller that goes away does not stop it halfway.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use tokio::sync::{mpsc, oneshot};

use super::configure::{self, Configuration};
use super::errors::GuestError;
use super::facts::Facts;
use super::layers::{self, Layer};
use super::limits::{self, Limits};
use super::volumes;
use crate::cgroup::container::ContainerCgroup;
use crate::pod::sandbox::{Pins, Sandbox};
use crate::pod::{Place, Pod};

/// The network namespace of a guest, and of most pods in one.
const OWN_NETWORK: &str = "/proc/self/ns/net";

type Reply<T> = oneshot::Sender<Result<T, GuestError>>;

/// A configured guest as it is answered.
#[derive(Clone, Debug)]
pub struct Configured {
    pub pins: Pins,
    pub facts: Facts,
}

enum Request {
    Configure(Box<Configuration>, Reply<Configured>),
    MountLayers(Vec<Layer>, Reply<Vec<PathBuf>>),
    LimitPod(Limits, Reply<()>),
}

/// The guest as the service sees it. Cheap to clone.
#[derive(Clone)]
pub struct Guest(mpsc::Sender<Request>);

impl Guest {
    /// Starts the task. `binary` is our own.
    pub fn start(pod: Pod, binary: PathBuf) -> Self {
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(Task { pod, binary, configured: None, layers: HashMap::new() }.run(receiver));
        Self(sender)
    }

    /// The identical second call answers like the first.
    pub async fn configure(&self, configuration: Configuration) -> Result<Configured, GuestError> {
        self.ask(|reply| Request::Configure(Box::new(configuration), reply)).await
    }

    /// Where each layer is mounted, in that order.
    pub async fn mount_layers(&self, layers: Vec<Layer>) -> Result<Vec<PathBuf>, GuestError> {
        self.ask(|reply| Request::MountLayers(layers, reply)).await
    }

    /// Bounds what the pod's containers may use together.
    pub async fn limit_pod(&self, limits: Limits) -> Result<(), GuestError> {
        self.ask(|reply| Request::LimitPod(limits, reply)).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, GuestError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(request(reply)).await.map_err(|_| GuestError::Ending)?;
        answer.await.map_err(|_| GuestError::Ending)?
    }
}

struct Task {
    pod: Pod,
    binary: PathBuf,
    configured: Option<(Configuration, Sandbox, Configured)>,
    /// Root port of each mounted layer, by the layer's name.
    layers: HashMap<String, String>,
}

impl Task {
    /// Whoever asked may be gone: what was done stays done, and the same request again finds it.
    async fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Configure(configuration, reply) => drop(reply.send(self.configure(*configuration).await)),
                Request::MountLayers(layers, reply) => drop(reply.send(self.mount_layers(layers).await)),
                Request::LimitPod(limits, reply) => drop(reply.send(self.limit_pod(limits))),
            }
        }
    }

    async fn configure(&mut self, wanted: Configuration) -> Result<Configured, GuestError> {
        if let Some((present, _, configured)) = &self.configured {
            return if present.is_same_as(&wanted) { Ok(configured.clone()) } else { Err(GuestError::OtherConfiguration) };
        }
        let shared = self.pod.shared();
        let sandbox = configure::apply(&wanted, &shared.hierarchies, &shared.children, &self.binary).await?;
        tokio::task::spawn_blocking(volumes::ensure_mounted)
            .await
            .map_err(io::Error::from)
            .map_err(GuestError::io("mount the volumes"))??;
        let cgroup = ContainerCgroup::at(sandbox.cgroup_directories().to_vec());
        let network = sandbox.pins.network.clone().or_else(|| Some(OWN_NETWORK.into()));
        self.pod.set_place(Place { network, cgroup: Some(cgroup), users: sandbox.user_namespace() });
        let configured = Configured { pins: sandbox.pins.clone(), facts: Facts::read()? };
        self.configured = Some((wanted, sandbox, configured.clone()));
        Ok(configured)
    }

    fn limit_pod(&self, limits: Limits) -> Result<(), GuestError> {
        let place = self.pod.place();
        let cgroup = place.cgroup.as_ref().and_then(ContainerCgroup::process_directory);
        limits::apply(cgroup.ok_or(GuestError::Missing { what: "the pod: Configure comes first".to_owned() })?, limits)
    }

    async fn mount_layers(&mut self, wanted: Vec<Layer>) -> Result<Vec<PathBuf>, GuestError> {
        let mut paths = Vec::with_capacity(wanted.len());
        for layer in wanted {
            match self.layers.get(&layer.name) {
                Some(port) if *port == layer.pci_path => {}
                Some(port) => {
                    return Err(GuestError::invalid("layers.name", format!("{:?} is mounted from root port {port}", layer.name)));
                }
                None => {
                    layers::mount(&layer).await?;
                    self.layers.insert(layer.name.clone(), layer.pci_path.clone());
                }
            }
            paths.push(layer.target());
        }
        Ok(paths)
    }
}
