//! The host's part of a pod: a task that owns the sandbox and ends the process.

use std::future::Future;
use std::path::PathBuf;

use tokio::sync::{mpsc, oneshot};

use super::children::Children;
use super::container::Reply;
use super::errors::PodError;
use super::journal::Exit;
use super::sandbox::{Pins, Sandbox, SandboxSpec};
use super::{Place, Pod};
use crate::cgroup::Hierarchies;
use crate::cgroup::container::ContainerCgroup;

/// A sandbox as it is answered.
#[derive(Clone, Debug)]
pub struct Made {
    pub pins: Pins,
    /// Host pid of the shared pid namespace's pid 1.
    pub pid_one: Option<i32>,
}

enum Request {
    Create(Box<SandboxSpec>, Reply<Made>),
    Shutdown(Reply<Vec<(String, Exit)>>),
}

/// What lives in the sandbox.
pub trait Tenant: Send + 'static {
    /// The sandbox is made.
    fn settle(&mut self, place: Place);
    /// Ends everything of the tenant; the containers that still ran, with what they ended with. After a failure it is as it was, and
    /// the caller tries again.
    fn evict(&mut self) -> impl Future<Output = Result<Vec<(String, Exit)>, PodError>> + Send;
    /// The sandbox is gone.
    fn finish(&mut self);
}

/// The supervisor as the service sees it. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor(mpsc::Sender<Request>);

impl Supervisor {
    /// Starts the task. `finished` is told when a shutdown is complete; `binary` is our own.
    pub fn start(
        tenant: impl Tenant,
        hierarchies: Hierarchies,
        children: Children,
        binary: PathBuf,
        finished: oneshot::Sender<()>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(4);
        tokio::spawn(Task { tenant, hierarchies, children, binary, sandbox: None }.run(receiver, finished));
        Self(sender)
    }

    /// The identical second call answers like the first.
    pub async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Made, PodError> {
        self.ask(|reply| Request::Create(Box::new(spec), reply)).await
    }

    /// Takes everything of the pod away; the containers that still ran, with what they ended with.
    pub async fn shut_down(&self) -> Result<Vec<(String, Exit)>, PodError> {
        self.ask(Request::Shutdown).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, PodError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(request(reply)).await.map_err(|_| PodError::ShuttingDown)?;
        answer.await.map_err(|_| PodError::ShuttingDown)?
    }
}

struct Task<T> {
    tenant: T,
    hierarchies: Hierarchies,
    children: Children,
    binary: PathBuf,
    sandbox: Option<Sandbox>,
}

impl<T: Tenant> Task<T> {
    async fn run(mut self, mut requests: mpsc::Receiver<Request>, finished: oneshot::Sender<()>) {
        while let Some(request) = requests.recv().await {
            match request {
                Request::Create(spec, reply) => drop(reply.send(self.create(*spec).await)),
                Request::Shutdown(reply) => {
                    let result = self.shut_down().await;
                    let done = result.is_ok();
                    let _ = reply.send(result);
                    if done {
                        // The process is ending when nobody listens any more.
                        let _ = finished.send(());
                        return;
                    }
                }
            }
        }
    }

    async fn create(&mut self, spec: SandboxSpec) -> Result<Made, PodError> {
        if self.sandbox.as_ref().is_some_and(|sandbox| sandbox.spec != spec) {
            return Err(PodError::OtherSandbox);
        }
        if self.sandbox.is_none() {
            let sandbox = Sandbox::create(spec, &self.hierarchies, &self.children, &self.binary).await?;
            let cgroup = ContainerCgroup::at(sandbox.cgroup_directories().to_vec());
            let (network, users) = (sandbox.pins.network.clone(), sandbox.user_namespace());
            self.tenant.settle(Place { network, cgroup: Some(cgroup), users });
            self.sandbox = Some(sandbox);
        }
        match &self.sandbox {
            Some(sandbox) => Ok(Made { pins: sandbox.pins.clone(), pid_one: sandbox.pid_one() }),
            None => Err(PodError::ShuttingDown),
        }
    }

    /// A tenant that will not go leaves the sandbox as it is.
    async fn shut_down(&mut self) -> Result<Vec<(String, Exit)>, PodError> {
        let exits = self.tenant.evict().await?;
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.destroy().await;
        }
        self.tenant.finish();
        Ok(exits)
    }
}

impl Tenant for Pod {
    fn settle(&mut self, place: Place) {
        self.set_place(place);
    }

    async fn evict(&mut self) -> Result<Vec<(String, Exit)>, PodError> {
        let mut deletions = tokio::task::JoinSet::new();
        for id in self.close() {
            let pod = self.clone();
            deletions.spawn(async move {
                let result = pod.delete(&id).await;
                (id, result)
            });
        }
        let (mut exits, mut failure) = (Vec::new(), None);
        while let Some(Ok((id, result))) = deletions.join_next().await {
            match result {
                Ok(exit) => exits.extend(exit.map(|exit| (id, exit))),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => {
                self.reopen();
                Err(error)
            }
            None => Ok(exits),
        }
    }

    fn finish(&mut self) {
        self.journal().close();
    }
}
